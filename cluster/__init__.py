"""Where runs are executed: profiles of clusters, and the files that start them. Imports no Ray."""
