"""GPU engine for Higgs Audio v2: own decoder, slots, CUDA graphs, quantised weights."""
