"""Stage 2: F_U and F_I learn to speak to the frozen LLM (method §4; paper §4.2, eq. 8).

First the warm start without the LLM, then through it: the title likelihood of the true item (the paper's objective) and, by default, a listwise
loss over the candidates' choice scores. Only the projections change; the LLM, the CF model and stage 1 are hashed before and after.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from allmrec import metrics, seeds
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_batch, score_requests
from allmrec.llm.packing import Request, pack
from allmrec.llm.prompt import PromptLayout, TitleTokens
from allmrec.llm.requests import RequestBuilder
from allmrec.models.a_llmrec import ALLMRec
from allmrec.training.cf import fingerprint
from allmrec.training.checkpoint import Checkpointer, copied_weights
from allmrec.training.loader import Snapshot
from allmrec.training.loop import SMALL_MATRICES, Evaluation, fit, torch_threads
from allmrec.training.losses import listwise_loss
from allmrec.training.stage2.examples import Examples
from allmrec.training.stage2.warm_start import judge_by_cosine, tokens_of, warm_start
from allmrec.weights import check_frozen, hash_parameters

MOST_JUDGED = 2000
LOG_TEMPERATURES = [step / 10 for step in range(-30, 51)]
"""Where the listwise temperature may start: 0.05 to 150 nats."""
Report = Callable[[str], None]


def train_stage2(
    snapshot: Snapshot,
    rec: ALLMRec,
    llm: FrozenLLM,
    layout: PromptLayout,
    titles: TitleTokens,
    priors: np.ndarray | None,
    config: Config,
    work: Path,
    report: Report,
) -> dict[str, float]:
    """Train `rec.projection` in place and return figures; checkpoints lie in `work`, a killed training goes on from them.

    `priors` [I+1] float32 nats are subtracted from the candidates' scores in the listwise loss (None: nothing is). Figures: stage-2 users,
    examples through the LLM, seconds, loss and Hit@1 of the early-stopping users before and after it, and the warm start's by cosine. Without
    stage-2 users the projections stay as they are, which is reported. Raises NotFrozenError where a frozen part changed.
    """
    started, device, before = time.monotonic(), rec.known.device, _frozen_hashes(rec, llm)
    with torch_threads(config.training.num_threads):
        rec.to(llm.device)
        train = Examples.of(snapshot.held_back("stage2"), rec, llm.device)
        judged = Examples.of(snapshot.held_back("early_stop"), rec, llm.device, MOST_JUDGED, config.seed)
        figures = {"users": float(len(train)), "examples": 0.0}
        if not len(train):
            report(
                "stage2: no user with a history gave up an item, so the projections are not trained; give more users or training.held_back_share"
            )
        else:
            figures |= _train(snapshot, rec, llm, layout, titles, priors, train, judged, config, work, report)
        rec.to(device)
    rec.projection.eval()
    for name, (module, hashed) in before.items():
        check_frozen(module, hashed, name)
    return figures | {"seconds": time.monotonic() - started}


def _train(
    snapshot: Snapshot, rec: ALLMRec, llm: FrozenLLM, layout: PromptLayout, titles: TitleTokens, priors: np.ndarray | None,
    train: Examples, judged: Examples, config: Config, work: Path, report: Report,
) -> dict[str, float]:  # fmt: skip
    settings, figures = config.stage2, {}
    if settings.user_input == "cf_and_history":
        rec.projection.set_user_statistics(train.x)
    inputs = rec.item_inputs()
    mark = fingerprint(
        snapshot,
        config,
        "stage2",
        config.prompt,
        llm.weight_hash,
        hash_parameters(rec.cf),
        hash_parameters(rec.alignment),
    )
    if settings.warm_start_steps:
        with torch_threads(SMALL_MATRICES):
            figures["warm_start_steps"] = float(
                warm_start(rec, inputs, train, judged, config, work, mark, report).step
            )
    if len(judged):
        rec.projection.eval()
        with torch.no_grad():
            figures |= {
                f"cosine_{name}": value
                for name, value in judge_by_cosine(rec, inputs, judged, config.seed)().items()
            }
    if not layout.soft_tokens:
        report("stage2: the prompt has no soft tokens, so nothing is trained through the LLM")
        return figures
    return figures | _Stage2(
        rec, llm, RequestBuilder(layout, titles, llm.max_positions), priors, inputs, config
    ).train(train, judged, work, mark, report)


@dataclass(frozen=True)
class _Read:
    """What the LLM said of N users' candidates."""

    choices: Tensor
    """[N, C] float, nats, priors subtracted; −inf is padding."""
    columns: Tensor
    """[N] int64, the true item's column."""
    title: float
    """Nats a token of the true titles."""


class _Stage2:
    """The part of stage 2 that goes through the LLM."""

    def __init__(
        self,
        rec: ALLMRec,
        llm: FrozenLLM,
        requests: RequestBuilder,
        priors: np.ndarray | None,
        inputs: Tensor,
        config: Config,
    ) -> None:
        self.rec, self.llm, self.requests, self.priors, self.inputs = rec, llm, requests, priors, inputs
        self.config, self.settings, self.num_items = config, config.stage2, len(inputs) - 1
        self.listwise = config.stage2.objective == "title_and_listwise"

    def train(
        self, train: Examples, judged: Examples, work: Path, mark: str, report: Report
    ) -> dict[str, float]:
        """Train until the early-stopping users' loss no longer falls; where it never fell below the start's, the start is kept."""
        settings, size = self.settings, self.settings.batch_size
        steps = settings.epochs * math.ceil(len(train) / size)
        if (
            self.llm.device.type == "cpu"
            and settings.max_examples is not None
            and steps * size > settings.max_examples
        ):
            steps = math.ceil(settings.max_examples / size)
            report(
                f"stage2: {steps * size} examples through the LLM on a CPU (stage2.max_examples), not {settings.epochs} epochs of {len(train)}"
            )
        judged_rows = range(min(settings.evaluation_users, len(judged)))
        read = self.read(judged, judged_rows) if len(judged) else None
        if self.listwise:
            self.start_temperature(
                read or self.read(train, range(min(settings.evaluation_users, len(train))))
            )
        start = copied_weights({"projection": self.rec.projection})["projection"]
        before = self.figures(read) if read else {}
        if before:
            report(
                f"stage2: through the LLM, {steps} steps of {size} users; before: loss {before['loss']:.4f} Hit@1 {before['Hit@1']:.4f}"
            )
        history = fit(
            "stage2",
            {"projection": self.rec.projection},
            torch.optim.Adam(self.rec.projection.parameters(), lr=settings.learning_rate),
            lambda epoch: self.batches(train, epoch),
            lambda batch: self.loss(train, *batch),
            total_steps=steps,
            seed=self.config.seed,
            checkpointer=Checkpointer(work / "llm", self.config.training.checkpoint_every, mark),
            report=report,
            evaluation=Evaluation(
                lambda: self.figures(self.read(judged, judged_rows)),
                "loss",
                settings.evaluate_every,
                settings.patience,
                False,
            )
            if before
            else None,
            clip_norm=1.0,
        )
        after = history.best or {}
        if before and not after.get("loss", math.inf) < before["loss"]:
            self.rec.projection.load_state_dict(start)
            after = before
            report(
                "stage2: the LLM's loss on the early-stopping users never fell below the start's, so the start is kept"
            )
        figures = {
            "steps": float(history.step),
            "examples": float(history.step * size),
            "llm_seconds": history.seconds,
            "loss": history.recent_loss,
        }
        figures |= {f"{name}_before": value for name, value in before.items()}
        return figures | {f"{name}_after": after[name] for name in before}

    def batches(self, examples: Examples, epoch: int) -> Iterator[tuple[list[int], list[np.ndarray]]]:
        """Yield one epoch's batches in seeded order: rows of `examples`, and each one's candidates (the target among them)."""
        order = (
            seeds.generator(self.config.seed, "stage2", "order", epoch).permutation(len(examples)).tolist()
        )
        for start in range(0, len(order), self.settings.batch_size):
            rows = order[start : start + self.settings.batch_size]
            yield rows, [self.candidates(examples, row, epoch) for row in rows]

    def candidates(self, examples: Examples, row: int, draw: int) -> np.ndarray:
        """Return a user's candidates of one draw, in the order in which a list layout shows them."""
        return examples.candidates(row, self.settings.num_candidates, self.num_items, self.config.seed, draw)

    def loss(self, examples: Examples, rows: list[int], candidates: list[np.ndarray]) -> Tensor:
        """Title loss (nats a token of the true title, as the authors' code has it), plus the listwise loss over the candidates by default."""
        answered = candidates if self.listwise else [np.array([int(examples.targets[row])]) for row in rows]
        requests = self.build(examples, rows, candidates, answered)
        fitting = [
            place for place, request in enumerate(requests) if request.num_positions <= self.llm.max_positions
        ]
        everything = torch.from_numpy(np.concatenate(candidates)).to(self.llm.device)
        items, tokens, users = tokens_of(
            self.rec, self.inputs, examples, torch.tensor(rows, device=self.llm.device), everything
        )
        if not fitting:
            return users.sum() * 0.0
        scores = self.scores(
            [_with_rows_of(requests[place], items) for place in fitting], tokens, users[fitting]
        )
        targets = [int(examples.targets[rows[place]]) for place in fitting]
        columns = [
            answered[place].tolist().index(target) for place, target in zip(fitting, targets, strict=True)
        ]
        lengths = sum(
            len(requests[place].answers[column]) for place, column in zip(fitting, columns, strict=True)
        )
        title = (
            -torch.stack([own[column] for own, column in zip(scores, columns, strict=True)]).sum() / lengths
        )
        if not self.listwise:
            return title
        choices = [own - self.priors_of(answered[place]) for own, place in zip(scores, fitting, strict=True)]
        padded = torch.nn.utils.rnn.pad_sequence(choices, batch_first=True, padding_value=float("-inf"))
        return title + listwise_loss(
            padded, torch.tensor(columns, device=padded.device), self.rec.projection.log_temperature_listwise
        )

    def build(
        self, examples: Examples, rows: list[int], candidates: list[np.ndarray], answered: list[np.ndarray]
    ) -> list[Request]:
        """Return the users' requests: `candidates` listed where the layout lists them, `answered` scored."""
        histories = [[idx for idx in examples.histories[row].tolist() if idx > 0] for row in rows]
        return [
            self.requests.build(history, answers.tolist(), shown.tolist())
            for history, shown, answers in zip(histories, candidates, answered, strict=True)
        ]

    def scores(self, requests: list[Request], tokens: Tensor, users: Tensor) -> list[Tensor]:
        """Return every request's log-probabilities in nats, differentiable."""
        found: dict[tuple[int, int], Tensor] = {}
        for batch in pack(requests, self.config.scoring.token_budget):
            for request, answer, score in zip(
                batch.answer_requests,
                batch.answer_indices,
                score_batch(self.llm, batch, tokens, users),
                strict=True,
            ):
                found[int(request), int(answer)] = score
        return [
            torch.stack([found[index, answer] for answer in range(len(request.answers))])
            for index, request in enumerate(requests)
        ]

    def priors_of(self, items: np.ndarray) -> Tensor:
        """Return the priors of items in nats, or zeros where none are subtracted."""
        values = self.priors[items] if self.priors is not None else np.zeros(len(items), dtype=np.float32)
        return torch.from_numpy(values).to(self.llm.device)

    @torch.no_grad()
    def figures(self, read: _Read) -> dict[str, float]:
        """Return the objective's loss and its parts, and Hit@1 among the candidates."""
        if not len(read.columns):
            return {"loss": math.inf, "title": math.inf, "listwise": math.inf, "Hit@1": 0.0}
        listwise = float(
            listwise_loss(read.choices, read.columns, self.rec.projection.log_temperature_listwise)
        )
        loss = read.title + listwise if self.listwise else read.title
        ranks = metrics.ranks_of_target(read.choices.cpu().numpy(), read.columns.cpu().numpy())
        return {
            "loss": loss,
            "title": read.title,
            "listwise": listwise,
            "Hit@1": metrics.figures(ranks)["Hit@1"],
        }

    @torch.no_grad()
    def start_temperature(self, read: _Read) -> None:
        """Set the listwise temperature to what makes the true items least surprising.

        Choice scores differ by many nats before training: at 1 the listwise loss would be several times the title's and drown it.
        """
        log_temperature = self.rec.projection.log_temperature_listwise
        if len(read.columns):
            losses = [
                float(listwise_loss(read.choices, read.columns, log_temperature.new_tensor(guess)))
                for guess in LOG_TEMPERATURES
            ]
            log_temperature.fill_(LOG_TEMPERATURES[int(np.argmin(losses))])

    @torch.no_grad()
    def read(self, examples: Examples, rows: range) -> _Read:
        """Let the LLM read `rows` of `examples` with their sampled candidates, which never change."""
        candidates = [self.candidates(examples, row, -1) for row in rows]
        requests = self.build(examples, list(rows), candidates, candidates)
        soft_items = self.rec.soft_items(inputs=self.inputs)
        chosen = torch.arange(len(rows), device=self.llm.device)
        users = self.rec.user_tokens(
            examples.x[chosen], examples.known[chosen], examples.histories[chosen], soft_items
        )
        scored = score_requests(self.llm, requests, soft_items, users, self.config.scoring.token_budget)
        nats, tokens, choices, columns = 0.0, 0, [], []
        for row, own, request, logprobs in zip(rows, candidates, requests, scored.logprobs, strict=True):
            if logprobs is None:  # the prompt is longer than the LLM reads
                continue
            columns.append(own.tolist().index(int(examples.targets[row])))
            nats, tokens = nats - float(logprobs[columns[-1]]), tokens + len(request.answers[columns[-1]])
            choices.append(torch.from_numpy(logprobs).to(self.llm.device) - self.priors_of(own))
        padded = (
            torch.nn.utils.rnn.pad_sequence(choices, batch_first=True, padding_value=-math.inf)
            if choices
            else torch.zeros(0, 1)
        )
        return _Read(
            padded, torch.tensor(columns, dtype=torch.long, device=padded.device), nats / max(tokens, 1)
        )


def _with_rows_of(request: Request, items: Tensor) -> Request:
    """Return the request with its soft tokens' items replaced by their rows among the sorted `items` (0, the user, stays 0)."""
    rows = torch.searchsorted(items.cpu(), torch.tensor(request.prompt.soft_items, dtype=torch.long)).tolist()
    return Request(
        type(request.prompt)(request.prompt.token_ids, request.prompt.soft_positions, rows), request.answers
    )


def _frozen_hashes(rec: ALLMRec, llm: FrozenLLM) -> dict[str, tuple[torch.nn.Module, str]]:
    parts = {"llm": llm.model, "cf": rec.cf, "stage1": rec.alignment}
    return {name: (module, hash_parameters(module)) for name, module in parts.items()}
