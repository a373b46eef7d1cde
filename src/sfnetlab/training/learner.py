"""The learner of networks and autoencoders: a step along the gradient for each batch, scores after each epoch.

What they differ by, the loss of a batch and the scores, are functions that it is given.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.training.loop import AUGMENTATION, Course, Record, generator
from sfnetlab.training.optimizers import Optimization, learning_rate_at, make_optimizer

BatchLoss = Callable[[NDArray[np.integer], np.random.Generator], tuple[Tensor, Tensor]]
Scores = Callable[[NDArray[np.float64]], Record]


class ModuleLearner:
    """The `loop.Learner` of a torch module.

    Parameters
    ----------
    module
        It is trained in place, from the weights that it has.
    rows
        Training rows, (course.n_rows,), of the store that `batch_loss` reads.
    batch_loss
        From some of the rows and the random numbers of the step to the loss, a scalar whose gradient is followed, and
        the terms that the history is made of, means over the batch, (n_terms,).
    scores
        From means of these terms over an epoch, (n_terms,), to the epoch's entries in the history. The module is in
        evaluation mode while it runs.
    """

    at_once = 1

    def __init__(
        self,
        module: nn.Module,
        course: Course,
        optimization: Optimization,
        *,
        rows: NDArray[np.integer],
        batch_loss: BatchLoss,
        scores: Scores,
    ) -> None:
        self.module = module.train()
        self.optimizer = make_optimizer(module, optimization)
        self.course, self.optimization = course, optimization
        self.rows, self.batch_loss, self.scores = rows, batch_loss, scores

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        """Take a step on one batch; returns its terms times its number of rows, (1, n_terms)."""
        (batch,) = batches
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        loss, terms = self.batch_loss(self.rows[batch], generator(self.course.seed, AUGMENTATION, step))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return terms.detach()[None] * len(batch)

    def records(self, sums: NDArray[np.float64], step: int) -> list[Record]:
        """Return one record: the learning rate of the last step, and the scores."""
        self.module.eval()
        scores = self.scores(sums / self.course.n_rows)
        self.module.train()
        return [{"learning_rate": self._learning_rate(step - 1)} | scores]

    def state(self) -> Record:
        """Return the states of the module and of its optimiser."""
        return {"module": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def restore(self, state: Record) -> None:
        """Go back to a state that `state` returned."""
        self.module.load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(step, self.course.n_steps, self.optimization)
