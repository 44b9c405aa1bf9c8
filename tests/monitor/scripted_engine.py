"""An engine that flags a scripted fault as soon as its contract fires, for tests of the screen."""

from diagnoser.diagnosis import Candidate, Diagnosis, Evidence
from probe.schema import Frame, Header


class ScriptedEngine:
    """Faulty once some layer's ``mask/leaked`` is over 0.1; needs five frames before a verdict."""

    def __init__(self, header: Header) -> None:
        self.header = header
        self.frames = 0
        self.last: Diagnosis | None = None
        self.steps: list[int] = []
        self.flagged: int | None = None
        self.layer = 0
        self.leaks = {
            int(column.site.partition("@")[2]): index
            for index, column in enumerate(header.columns)
            if column.metric == "leaked"
        }

    def rebind(self, header: Header) -> None:
        self.header = header

    def update(self, frame: Frame) -> Diagnosis:
        if frame.rank == self.header.rank or self.last is None:
            self.last = self._diagnosed(frame)
        return self.last

    def _diagnosed(self, frame: Frame) -> Diagnosis:
        self.frames += 1
        self.steps.append(frame.step)
        values = frame.array
        leaking = [layer for layer, index in self.leaks.items() if values[index] > 0.1]
        if leaking and self.flagged is None:
            self.flagged, self.layer = frame.step, leaking[0]
        common = {"run": self.header.run, "frames": self.frames, "last_step": frame.step}
        sites = self.header.anatomy.sites
        if self.flagged is not None:
            return Diagnosis(**common, **self._faulty(sites))
        suspicion = {site.name: 0.02 for site in sites}
        verdict = "insufficient" if self.frames < 5 else "healthy"
        return Diagnosis(**common, verdict=verdict, probability=0.02, suspicion=suspicion)

    def _faulty(self, sites):
        here = self.layer
        suspicion = {site.name: 0.03 for site in sites} | {
            f"mask@{here}": 0.96,
            f"attention@{here}": 0.71,
            f"score@{here}": 0.12,
            f"residual_attention@{here}": 0.44,
            f"norm_attention@{here}": 0.35,
            f"ffn@{here}": 0.31,
            f"residual_ffn@{here}": 0.3,
            f"norm_ffn@{here}": 0.28,
            f"qkv@{here + 1}": 0.27,
            f"attention@{here + 1}": 0.26,
        }
        return {
            "verdict": "faulty",
            "probability": 0.97,
            "first_flagged_step": self.flagged,
            "category": "masking",
            "category_probability": 0.93,
            "root_cause": "mask_application",
            "root_cause_probability": 0.88,
            "layers": (here,),
            "ranking": (
                Candidate("masking", "mask_application", 0.88),
                Candidate("masking", "mask_generation", 0.06),
                Candidate("score", "normalization", 0.02),
            ),
            "importance": {"mask": 0.7, "attention": 0.3},
            "suspicion": suspicion,
            "evidence": (
                Evidence("mask@2", "leaked", 0.31, "0", self.flagged,
                         "31 % of the pairs that the mask should hide are visible at layer 2, "
                         f"since step {self.flagged}."),
                Evidence("mask@2", "padding_mass", 0.23, "0", self.flagged,
                         "Real tokens put 0.23 of their attention on padding at layer 2; "
                         "it should be 0."),
                Evidence("attention@2", "entropy", 0.8, "steady", self.flagged,
                         "Attention entropy at layer 2 rose above its peers."),
            ),
            "repair": "Pass the mask to the attention call, additive (0 / dtype minimum) or bool "
            "with True = attend for SDPA; assert on one padded batch that attention on padding "
            "is 0.",
        }  # fmt: skip
