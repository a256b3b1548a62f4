"""Two methods' fronts compared by a paired bootstrap over test images and training seeds."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxrobust.evaluation._front import front
from jaxrobust.evaluation._hypervolume import hypervolume
from jaxrobust.evaluation._robust_at import robust_at
from jaxrobust.inputs import InputError, as_array, as_count, as_seed

PLACES = 41  # clean accuracies at which two fronts are compared
MEASURED = 0.9  # of the resamples must have a common range, or nothing is said about it
TAILS = (2.5, 97.5)


class FrontComparison(NamedTuple):
    """How far the first front lies above the second.

    Attributes:
      at: `[g]` clean accuracies that both fronts reach; empty if there are none.
      difference: `[g]` robust accuracy of the first minus that of the second there.
      low: `[g]` lower ends of 95 % intervals; NaN if in a tenth of the resamples or more the two
        fronts reach no common clean accuracy.
      high: `[g]` upper ends.
      area: hypervolume of the first minus that of the second.
      area_low: lower end of its 95 % interval.
      area_high: upper end.
      larger: share of the resamples in which the first has the larger hypervolume; ties count half.
      images: the number of test images.
      seeds: the number of training seeds.
      resamples: the number of resamples.
    """

    at: np.ndarray
    difference: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: float
    area_low: float
    area_high: float
    larger: float
    images: int
    seeds: int
    resamples: int

    def sentence(self, first: str, second: str) -> str:
        """Which front is above, where, and how sure.

        Args:
          first: name of the first method.
          second: name of the second one.

        Returns:
          One sentence, or two.
        """
        seeds = f"{self.seeds} seeds" if self.seeds > 1 else "one seed"
        sample = f"{self.resamples:,} paired resamples of {self.images:,} images and {seeds}"
        share, best = self.larger, first
        if share < 0.5:
            share, best = 1 - share, second
        end = f"{best} dominates the larger area in {100 * share:.0f} % of {sample}."
        if not len(self.at):
            return f"{first} and {second} reach no common clean accuracy. {end}"
        parts = self._sure(first, second, self.low > 0) + self._sure(second, first, self.high < 0)
        if not parts:
            low, high = 100 * self.at[[0, -1]]
            return (
                f"Neither {first} nor {second} is surely above the other at a clean accuracy that "
                f"both reach ({low:.1f} to {high:.1f} %). {end}"
            )
        return f"{'; '.join(parts)} (95 % intervals exclude 0). {end}"

    def _sure(self, above: str, below: str, where: np.ndarray) -> list[str]:
        """The ranges of clean accuracy in which one is surely above the other."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]])))
        texts = []
        for start, end in edges.reshape(-1, 2):
            gain = 100 * np.abs(self.difference[start:end])
            low, high = (f"{100 * value:.1f}" for value in self.at[[start, end - 1]])
            place = f"at {low}" if low == high else f"from {low} to {high}"
            points = f"{gain.min():.1f}"
            if f"{gain.max():.1f}" != points:
                points += f" to {gain.max():.1f}"
            texts.append(f"{above} is above {below} {place} % clean, by {points} points")
        return texts


def compare_fronts(
    first: tuple[ArrayLike, ArrayLike],
    second: tuple[ArrayLike, ArrayLike],
    *,
    reference: tuple[float, float] = (0.0, 0.0),
    resamples: int = 2000,
    seed: int = 0,
) -> FrontComparison:
    """Compares two methods' fronts by a paired bootstrap over test images and training seeds.

    Each resample draws images and seeds with replacement, the same ones for both methods and all of
    their points; fronts, robust accuracies at equal clean accuracy and hypervolumes are recomputed
    from it. The range of clean accuracies that both fronts reach varies with the drawn images. So
    relative positions in that range are compared, from its lower to its upper end; each is labelled
    by its clean accuracy over all images. Few seeds make a rough bootstrap: with three, intervals
    tend to be too narrow. `scipy.stats.bootstrap` resamples one axis, so it cannot draw both.

    Args:
      first: for one method, which images each point classifies correctly without and under attack:
        two arrays `[points, seeds, images]` of bool.
      second: the same for the other method, with the same seeds and images.
      reference: corner of the hypervolume, a clean and a robust accuracy.
      resamples: the number of resamples.
      seed: the seed of the draws.

    Returns:
      `FrontComparison`, whose `sentence` says the result.

    Raises:
      InputError: if shapes do not fit, or a number is out of range.

    Example:
      >>> import numpy as np
      >>> from jaxrobust import evaluation
      >>> clean = np.arange(200) % 10 < np.array([8, 9])[:, None, None]
      >>> better = clean & (np.arange(200) % 5 < 3)
      >>> worse = clean & (np.arange(200) % 5 < 2)
      >>> found = evaluation.compare_fronts((clean, better), (clean, worse), resamples=200)
      >>> print(found.sentence("A", "B").split(".")[-2])
       A dominates the larger area in 100 % of 200 paired resamples of 200 images and one seed

    References:
      Efron & Tibshirani, 1993 (An Introduction to the Bootstrap), Chapter 13.
    """
    as_count(resamples, name="resamples")
    generator = np.random.default_rng(as_seed(seed))
    masks = [_checked(name, pair) for name, pair in (("first", first), ("second", second))]
    (seeds, images), other = (pair[0].shape[1:] for pair in masks)
    if (seeds, images) != other:
        raise InputError(
            f"first and second must have the same seeds and images, got {(seeds, images)} and "
            f"{other}"
        )
    whole = np.full((images, 1), 1 / images), np.full((seeds, 1), 1 / seeds)
    drawn = (
        generator.multinomial(images, whole[0][:, 0], resamples).T / images,
        generator.multinomial(seeds, whole[1][:, 0], resamples).T / seeds,
    )
    measured = [_accuracies(pair, whole) for pair in masks]
    again = [_accuracies(pair, drawn) for pair in masks]
    ((at, difference, area),) = _differences(measured, reference)
    found = [(d, area) for at, d, area in _differences(again, reference)]
    areas = np.array([area for _, area in found])
    missing = np.full(len(at), np.nan)  # no common range in a resample, or in one alone
    differences = np.stack([d if len(d) == len(at) else missing for d, _ in found])
    low, high = _tails(differences)
    area_low, area_high = np.percentile(areas, TAILS)
    larger = float(np.mean(areas > 0) + np.mean(areas == 0) / 2)
    ends = float(area), float(area_low), float(area_high)
    return FrontComparison(at, difference, low, high, *ends, larger, images, seeds, resamples)


Pair = tuple[np.ndarray, np.ndarray]


def _checked(name: str, pair: tuple[ArrayLike, ArrayLike]) -> Pair:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise InputError(
            f"{name} must be two arrays [points, seeds, images] of bool, got {pair!r:.80}"
        )
    clean, robust = (np.asarray(as_array(mask, name=name)) for mask in pair)
    fits = clean.ndim == 3 and clean.shape == robust.shape and clean.size > 0
    if not fits or clean.dtype != bool or robust.dtype != bool:
        raise InputError(
            f"{name} must be two arrays [points, seeds, images] of bool, got {clean.dtype} "
            f"{clean.shape} and {robust.dtype} {robust.shape}"
        )
    return clean, robust


def _accuracies(pair: Pair, weights: Pair) -> Pair:
    """Clean and robust accuracies `[points, resamples]`."""
    of_images, of_seeds = weights
    clean, robust = (
        np.einsum("psr,sr->pr", mask.astype(np.float64) @ of_images, of_seeds) for mask in pair
    )
    return clean, robust


def _common(fronts: list[Pair]) -> np.ndarray:
    """Clean accuracies between the ends of both fronts; none without a common range."""
    reached = [clean[front(clean, robust)] for clean, robust in fronts]
    low, high = max(x[0] for x in reached), min(x[-1] for x in reached)
    return np.linspace(low, high, PLACES) if low <= high else np.zeros(0)


def _differences(
    pairs: list[Pair], reference: tuple[float, float]
) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """For each resample, clean accuracies, differences there, and the difference of areas."""
    (clean, robust), (other_clean, other_robust) = pairs
    found = []
    for number in range(clean.shape[1]):
        ours = clean[:, number], robust[:, number]
        theirs = other_clean[:, number], other_robust[:, number]
        at = _common([ours, theirs])
        areas = [hypervolume(*points, reference=reference) for points in (ours, theirs)]
        found.append((at, robust_at(*ours, at) - robust_at(*theirs, at), areas[0] - areas[1]))
    return found


def _tails(differences: np.ndarray) -> Pair:
    """Ends of the intervals, `[g]` each; NaN where too few resamples have a value."""
    known = differences[np.isfinite(differences).all(1)]
    if len(known) <= MEASURED * len(differences):
        return tuple(np.full((2, differences.shape[1]), np.nan))  # type: ignore[return-value]
    low, high = np.percentile(known, TAILS, axis=0)
    return low, high
