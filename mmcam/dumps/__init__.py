"""Explaining a whole data set: plan and parts, the HDF5 file of maps, resuming, merging, verifying, clusters."""
