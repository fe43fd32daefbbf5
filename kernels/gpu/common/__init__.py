"""What the kernels share: layers, likelihoods, random numbers, HMC, launches."""
