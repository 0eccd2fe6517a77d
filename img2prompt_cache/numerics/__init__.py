"""Pure functions on arrays: imports numpy, scipy, faiss and errors, nothing else."""
