"""What a model is: specs, snapshots, training, evaluation, the gate and the artifact. Knows no framework."""
