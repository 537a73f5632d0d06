// What the service says of its model at GET model and GET history. What may be absent is optional here.

export type Feature = {
  name: string;
  type: "number" | "text" | "boolean" | "timestamp";
  required: boolean;
  categories?: string[];
};

export type Value = number | string | boolean | null;
export type Row = Record<string, Value>;
export type Metrics = Record<string, number | null>;

export type Card = {
  model: string;
  release: number | null;
  task: "regression" | "binary" | "multiclass";
  unit?: string;
  positive?: Value;
  target: string;
  labels?: Value[];
  features: Feature[];
  metrics: Metrics;
  snapshot: string;
  created: string;
  example?: Row | null;
  key?: string[] | null;
  metric?: string | null;
  higher_is_better?: Record<string, boolean> | null;
  champion?: Metrics | null;
  rows?: { fitted_on: string; holdout: number } | null;
  estimator?: string | null;
  importance?: { feature: string; importance: number }[] | null;
  reasons?: string[] | null;
  limits?: { max_rows: number; max_body_bytes: number; max_concurrency: number; timeout_seconds: number } | null;
};

export type Release = { release: number; created: string; state: string; reason?: string | null; metrics?: Metrics | null };

export type Answer = { predictions: Value[]; probabilities?: Record<string, number>[]; release: number | null };
