"""What stage 2 learns from the frozen LLM: the true title's likelihood, and the order of the candidates.

The first is the paper's objective (A-LLMRec, KDD 2024, equation 8), averaged over the tokens of the titles as
in the authors' code; the second compares the candidates' choice scores: the log-probability of the title less
its prior. Gradients reach the projections alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from allmrec import metrics
from allmrec.config import Config
from allmrec.llm.frozen import FrozenLLM
from allmrec.llm.multi_item import score_batch, score_requests
from allmrec.llm.packing import Request, pack
from allmrec.llm.prompt import PromptLayout
from allmrec.llm.requests import RequestBuilder
from allmrec.llm.tokens import TitleTokens
from allmrec.models.a_llmrec import ALLMRec
from allmrec.training.group import ALONE, Group
from allmrec.training.losses import listwise_loss
from allmrec.training.stage2.soft_tokens import batch_tokens
from allmrec.training.stage2.training_examples import Examples

LOG_TEMPERATURES = [step / 10 for step in range(-30, 51)]
"""Where the listwise temperature may start: 0.05 to 150 nats."""
EVALUATION_DRAW = -1
"""The draw of candidates that evaluations use; epochs use theirs, from 0."""


@dataclass(frozen=True)
class PromptParts:
    """What prompts are made of."""

    layout: PromptLayout
    titles: TitleTokens
    priors: np.ndarray | None
    """[I+1] float32, nats: each title's log-probability by itself; None: none is subtracted."""


@dataclass(frozen=True)
class UserBatch:
    """The users of one step."""

    rows: list[int]
    """B rows of the examples."""
    candidates: list[np.ndarray]
    """Per user, [C] int64: item_idx of the candidates, the target among them, as a layout lists them."""


@dataclass(frozen=True)
class ChoiceScores:
    """What the LLM says of N users' candidates; users whose prompt is too long for it are left out."""

    scores: Tensor
    """[N, C] float, nats, priors subtracted; −inf is padding."""
    targets: Tensor
    """[N] int64: the true item's column."""
    title_nats_per_token: float
    """Negative log-likelihood of the true titles."""


class LLMObjective:
    """The loss of a batch of users through the frozen LLM, and the figures of an evaluation."""

    def __init__(self, rec: ALLMRec, llm: FrozenLLM, prompt: PromptParts, config: Config) -> None:
        self.rec = rec
        self.llm = llm
        self.prompt = prompt
        self.settings = config.stage2
        self.builder = RequestBuilder(prompt.layout, prompt.titles, llm.max_positions)
        self.seed = config.seed
        self.token_budget = config.llm.token_budget
        self.item_inputs_IK = rec.item_inputs()
        self.is_listwise = config.stage2.objective == "title_and_listwise"

    def batch(self, examples: Examples, rows: Sequence[int], draw: int) -> UserBatch:
        """Return the users in `rows` of `examples` with the candidates of one draw."""
        num_items = len(self.item_inputs_IK) - 1
        num_candidates = self.settings.num_candidates
        return UserBatch(
            list(rows),
            [examples.candidates(row, num_candidates, num_items, self.seed, draw) for row in rows],
        )

    def loss(self, examples: Examples, batch: UserBatch, group: Group = ALONE) -> Tensor:
        """Return the title loss plus, where the objective has it, the listwise loss: a scalar.

        The title loss is in nats per token of the true titles. Users whose prompt is too long for the LLM
        count in neither. Of several processes each lets the LLM read its share of the other users, and
        returns its part of the sum; soft tokens, which cost little, are those of the whole batch everywhere.
        """
        targets = [int(examples.targets[row]) for row in batch.rows]
        answers = batch.candidates if self.is_listwise else [np.array([target]) for target in targets]
        requests = self._requests(examples, batch, answers)
        fitting = [
            user for user, request in enumerate(requests) if request.num_positions <= self.llm.max_positions
        ]
        device = self.llm.device
        with group.same_draws():
            tokens = batch_tokens(
                self.rec,
                self.item_inputs_IK,
                examples,
                torch.tensor(batch.rows, device=device),
                torch.from_numpy(np.concatenate(batch.candidates)).to(device),
            )
        own = fitting[group.share(len(fitting))]
        if not own:
            return tokens.users.sum() * 0.0
        logprobs = self._logprobs(
            [tokens.request(requests[user]) for user in own], tokens.items, tokens.users[own]
        )
        columns = {user: answers[user].tolist().index(targets[user]) for user in fitting}
        num_tokens = sum(len(requests[user].answers[column]) for user, column in columns.items())
        own_columns = [columns[user] for user in own]
        title_loss = _title_loss(logprobs, own_columns, num_tokens)
        if not self.is_listwise:
            return title_loss
        scores_NC = _padded(
            [logprobs_C - self._priors(answers[user]) for logprobs_C, user in zip(logprobs, own, strict=True)]
        )
        listwise = self._listwise_loss(scores_NC, torch.tensor(own_columns, device=device))
        return title_loss + listwise * (len(own) / len(fitting))

    @torch.no_grad()
    def choice_scores(self, examples: Examples, rows: Sequence[int]) -> ChoiceScores:
        """Let the LLM score the users in `rows` of `examples`, each with candidates that never change."""
        batch = self.batch(examples, rows, EVALUATION_DRAW)
        requests = self._requests(examples, batch, batch.candidates)
        soft_items_IH = self.rec.soft_items(inputs=self.item_inputs_IK)
        users = torch.tensor(batch.rows, device=self.llm.device)
        soft_users_BH = self.rec.user_tokens(
            examples.x[users], examples.known[users], examples.histories[users], soft_items_IH
        )
        scored = score_requests(self.llm, requests, soft_items_IH, soft_users_BH, self.token_budget)
        nats = 0.0
        num_tokens = 0
        scores: list[Tensor] = []
        columns: list[int] = []
        for row, items, request, logprobs in zip(
            batch.rows, batch.candidates, requests, scored.logprobs, strict=True
        ):
            if logprobs is None:  # the prompt is too long
                continue
            column = items.tolist().index(int(examples.targets[row]))
            columns.append(column)
            nats -= float(logprobs[column])
            num_tokens += len(request.answers[column])
            scores.append(torch.from_numpy(logprobs).to(self.llm.device) - self._priors(items))
        scores_NC = _padded(scores) if scores else torch.zeros(0, 1)
        targets_N = torch.tensor(columns, dtype=torch.long, device=scores_NC.device)
        return ChoiceScores(scores_NC, targets_N, nats / max(num_tokens, 1))

    @torch.no_grad()
    def figures(self, choices: ChoiceScores) -> dict[str, float]:
        """Return the loss (infinite for no users), its parts, and Hit@1 among the candidates."""
        if not len(choices.targets):
            return {"loss": math.inf, "title": math.inf, "listwise": math.inf, "Hit@1": 0.0}
        title = choices.title_nats_per_token
        listwise = float(self._listwise_loss(choices.scores, choices.targets))
        ranks = metrics.ranks_of_target(choices.scores.cpu().numpy(), choices.targets.cpu().numpy())
        return {
            "loss": title + listwise if self.is_listwise else title,
            "title": title,
            "listwise": listwise,
            "Hit@1": metrics.figures(ranks)["Hit@1"],
        }

    @torch.no_grad()
    def start_temperature(self, choices: ChoiceScores) -> None:
        """Set the listwise temperature to the one of LOG_TEMPERATURES at which the listwise loss is least.

        Choice scores differ by many nats before training: at 1 the listwise loss would be several times the
        title's and drown it.
        """
        log_temperature = self.rec.projection.log_temperature_listwise
        if len(choices.targets):
            losses = [
                float(listwise_loss(choices.scores, choices.targets, log_temperature.new_tensor(value)))
                for value in LOG_TEMPERATURES
            ]
            log_temperature.fill_(LOG_TEMPERATURES[int(np.argmin(losses))])

    def _requests(self, examples: Examples, batch: UserBatch, answers: Sequence[np.ndarray]) -> list[Request]:
        """Return the users' requests; `answers` (per user, item_idx [A] int64) are what is scored."""
        histories = [[idx for idx in examples.histories[row].tolist() if idx > 0] for row in batch.rows]
        return [
            self.builder.build(history, answered.tolist(), listed.tolist())
            for history, listed, answered in zip(histories, batch.candidates, answers, strict=True)
        ]

    def _logprobs(
        self, requests: list[Request], soft_items_NH: Tensor, soft_users_BH: Tensor
    ) -> list[Tensor]:
        """Return the log-probabilities of each request's answers: [number of answers] float nats.

        `soft_items_NH` [N, H] float holds the items that the prompts name by row, `soft_users_BH` [B, H] the
        B requests' users.
        """
        logprobs: dict[tuple[int, int], Tensor] = {}
        for packed in pack(requests, self.token_budget):
            scores_S = score_batch(self.llm, packed, soft_items_NH, soft_users_BH)
            for request, answer, score in zip(
                packed.answer_requests, packed.answer_indices, scores_S, strict=True
            ):
                logprobs[int(request), int(answer)] = score
        return [
            torch.stack([logprobs[number, answer] for answer in range(len(request.answers))])
            for number, request in enumerate(requests)
        ]

    def _listwise_loss(self, scores_NC: Tensor, targets_N: Tensor) -> Tensor:
        """Return the listwise loss, a scalar, of scores [N, C] float with the targets' columns [N] int64."""
        return listwise_loss(scores_NC, targets_N, self.rec.projection.log_temperature_listwise)

    def _priors(self, items_C: np.ndarray) -> Tensor:
        """Return the priors [C] float32 of items [C] int64 in nats; zeros where none are subtracted."""
        priors = self.prompt.priors
        values_C = priors[items_C] if priors is not None else np.zeros(len(items_C), dtype=np.float32)
        return torch.from_numpy(values_C).to(self.llm.device)


def _title_loss(logprobs: list[Tensor], columns: list[int], num_tokens: int) -> Tensor:
    """Return the negative log-likelihood of N true titles, over a number of tokens, in nats: a scalar.

    `logprobs` are those of each user's answers, [number of answers] float nats, `columns` the true ones
    among them.
    """
    of_titles_N = torch.stack(
        [logprobs_A[column] for logprobs_A, column in zip(logprobs, columns, strict=True)]
    )
    return -of_titles_N.sum() / num_tokens


def _padded(scores: list[Tensor]) -> Tensor:
    """Return N users' scores, [their number of candidates] float each, as [N, C], padded with −inf."""
    return nn.utils.rnn.pad_sequence(scores, batch_first=True, padding_value=-math.inf)
