"""What a Bento carries to answer HTTP: the contract, the model, and the formats."""
