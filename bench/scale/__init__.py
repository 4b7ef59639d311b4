"""A model of many replicas under an autoscaler. `bench.simulate` runs it."""
