"""A roll-out for other people's machinery: a mirror in MLflow, and files for KServe, Argo Rollouts and compose. The chain stays the truth."""
