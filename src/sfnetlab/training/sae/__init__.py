"""Training of sparse autoencoders.

settings.py says what is chosen about one of them, recipe.py how the rates go through a run, state.py what a step means,
reference.py the step of every variant in plain PyTorch, kernels/ the same step on a CPU, faster; start.py makes the
first weights, restarts.py starts silent latents again, trainer.py takes any number of autoencoders through a run.
"""
