"""Many independent pieces of one job: in this process, or on the workers of a Dask cluster."""
