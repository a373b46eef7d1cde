"""Stage embed-images: the feature table of a network, for every galaxy of the survey.

An SFNet gives what its head sees (at most k values a galaxy, CSR); a dense network or encoder its pooled output.
"""

from functools import partial

import numpy as np
from scipy import sparse

from sfnetlab.artifacts import Metrics, create_array, read_survey, write_features
from sfnetlab.metrics.sparsity import activation_frequency
from sfnetlab.plan import FrozenEmbeddingSpec, TrainedEmbeddingSpec
from sfnetlab.runner import Task, stage_main
