"""What features are called: descriptions from files, and from Neuronpedia."""
