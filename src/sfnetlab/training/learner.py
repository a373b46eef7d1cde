"""The learner of networks and autoencoders: a step along the gradient for each batch, scores after each epoch.

What they differ by, the loss of a batch and the scores, are functions that it is given.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from sfnetlab.training.batches import Ahead
from sfnetlab.training.loop import AUGMENTATION, Course, Record, generator
from sfnetlab.training.optimizers import Optimization, learning_rate_at, make_optimizer

Read = Callable[[NDArray[np.integer], np.random.Generator], tuple[Tensor, Tensor]]
BatchLoss = Callable[[tuple[Tensor, Tensor]], tuple[Tensor, Tensor]]
Scores = Callable[[NDArray[np.float64]], Record]


class ModuleLearner:
    """The `loop.Learner` of a torch module.

    Parameters
    ----------
    module
        It is trained in place, from the weights that it has.
    rows
        Training rows, (course.n_rows,), of the store that `read` reads.
    read
        From some of the rows and the random numbers of the step to the inputs of `batch_loss`, on the device.
    batch_loss
        From inputs to the loss, a scalar whose gradient is followed, and the terms that the history is made of, means
        over the batch, (n_terms,).
    scores
        From means of these terms over an epoch, (n_terms,), to the epoch's entries in the history. The module is in
        evaluation mode while it runs.
    reads_ahead
        Whether a thread reads the inputs of the next step while a device takes this one. They are the same either way.
    """

    at_once = 1

    def __init__(
        self,
        module: nn.Module,
        course: Course,
        optimization: Optimization,
        *,
        rows: NDArray[np.integer],
        read: Read,
        batch_loss: BatchLoss,
        scores: Scores,
        reads_ahead: bool,
    ) -> None:
        self.module = module.train()
        self.optimizer = make_optimizer(module, optimization)
        self.course, self.optimization = course, optimization
        self.rows, self.read, self.batch_loss, self.scores = rows, read, batch_loss, scores
        self._ahead = Ahead(self._inputs, course.n_steps) if reads_ahead else None
        self._of_epoch: tuple[int, list[NDArray[np.intp]]] = (-1, [])

    def learn(self, batches: Sequence[NDArray[np.intp]], step: int) -> Tensor:
        """Take a step on one batch; returns its terms times its number of rows, (1, n_terms)."""
        (batch,) = batches
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        inputs = self._ahead.take(step) if self._ahead else self._read_batch(batch, step)
        loss, terms = self.batch_loss(inputs)
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

    def _read_batch(self, batch: NDArray[np.intp], step: int) -> tuple[Tensor, Tensor]:
        return self.read(self.rows[batch], generator(self.course.seed, AUGMENTATION, step))

    def _inputs(self, step: int) -> tuple[Tensor, Tensor]:
        epoch, number = divmod(step, self.course.batches_per_epoch)
        if self._of_epoch[0] != epoch:
            self._of_epoch = epoch, self.course.batches(epoch)
        return self._read_batch(self._of_epoch[1][number], step)

    def _learning_rate(self, step: int) -> float:
        return learning_rate_at(step, self.course.n_steps, self.optimization)
