"""What training changed: which features, by how much, what each of them does to the task."""
