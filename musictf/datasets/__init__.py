"""What a dataset is, folders and manifests of the user's own, splits and checks."""
