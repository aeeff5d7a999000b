"""Paths of optimisers down a loss surface, as pictures and an animation (the paper's Figure 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lrbench_caffe.plots.files import DPI, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHADES = {"yellow": "#f2c500", "red": "#d62728"}  # of colours that are too bright on white
LEVELS = 28
GIF_COLOURS = 96
FRAME_MILLISECONDS = 60
LAST_MILLISECONDS = 3000


@dataclass(frozen=True)
class Track:
    """One optimiser's path.

    Attributes:
        label: for the legend.
        colour: a name that matplotlib knows.
        points: shape (n, 2): x and y at each iteration.
        losses, rates: shape (n,): the loss there, and the LR of the update that follows.
    """

    label: str
    colour: str
    points: np.ndarray
    losses: np.ndarray
    rates: np.ndarray

    @property
    def shade(self) -> str:
        return SHADES.get(self.colour, self.colour)


@dataclass(frozen=True)
class Surface:
    """The surface below the paths.

    Attributes:
        x, y: shapes (m,) and (n,): a grid.
        z: shape (n, m): the loss on it.
        close_up: x and y ranges of the part to enlarge: (x from, x to, y from, y to).
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    close_up: tuple[float, float, float, float]


class DescentPlot:
    """The picture of some tracks at one iteration; redrawn for the next one without its background."""

    def __init__(self, surface: Surface, tracks: Sequence[Track]) -> None:
        from matplotlib.figure import Figure

        self.tracks = tracks
        self.figure = Figure(figsize=(10, 4.6), layout="constrained")
        grid = self.figure.add_gridspec(2, 3, width_ratios=[3, 2.4, 2.2])
        self.whole = self.figure.add_subplot(grid[:, 0])
        self.close = self.figure.add_subplot(grid[:, 1])
        self.loss = self.figure.add_subplot(grid[0, 2])
        self.rate = self.figure.add_subplot(grid[1, 2], sharex=self.loss)
        self._draw_surface(surface)
        self._draw_scales()
        self.lines = [self._lines(track) for track in tracks]
        self.title = self.figure.suptitle("iteration 000", fontsize=11)
        handles = [lines[0] for lines in self.lines]
        self.figure.legend(
            handles=handles, loc="outside lower center", ncols=len(tracks), fontsize=8
        )

    def _draw_surface(self, surface: Surface) -> None:
        for axes in (self.whole, self.close):
            axes.contourf(surface.x, surface.y, surface.z, LEVELS, cmap="Blues_r", zorder=0)
            axes.contour(
                surface.x, surface.y, surface.z, LEVELS, colors="white", linewidths=0.3, zorder=1
            )
            axes.tick_params(labelsize=7)
        left, right, low, high = surface.close_up
        self.whole.add_patch(_frame(left, right, low, high))
        self.close.set_xlim(left, right)
        self.close.set_ylim(low, high)
        self.whole.set_title("loss over two parameters", fontsize=9)
        self.close.set_title("around the two minima", fontsize=9)

    def _draw_scales(self) -> None:
        losses = np.concatenate([track.losses for track in self.tracks])
        rates = np.concatenate([track.rates for track in self.tracks])
        for axes, values, name in (
            (self.loss, losses, "loss"),
            (self.rate, rates, "learning rate"),
        ):
            margin = 0.06 * (values.max() - values.min())
            axes.set_ylim(values.min() - margin, values.max() + margin)
            axes.set_xlim(0, max(len(track.losses) for track in self.tracks))
            axes.set_ylabel(name, fontsize=8)
            axes.tick_params(labelsize=7)
            axes.grid(alpha=0.3)
        self.rate.set_xlabel("iteration", fontsize=8)

    def _lines(self, track: Track) -> tuple[Any, ...]:
        """The way and its head in both maps, the loss and the LR."""
        look: dict[str, Any] = {"color": track.shade, "linewidth": 1.1, "alpha": 0.85}
        head: dict[str, Any] = {
            "marker": "o",
            "markersize": 6,
            "markeredgecolor": "white",
            "color": track.shade,
        }
        ways = [
            axes.plot([], [], label=track.label, **look)[0] for axes in (self.whole, self.close)
        ]
        heads = [axes.plot([], [], zorder=5, **head)[0] for axes in (self.whole, self.close)]
        curves = [axes.plot([], [], **look)[0] for axes in (self.loss, self.rate)]
        return (*ways, *heads, *curves)

    def show(self, iteration: int) -> None:
        """Set the lines to what they are at an iteration."""
        self.title.set_text(f"iteration {iteration}")
        t = np.arange(iteration + 1)
        for track, (*ways, one, other, loss, rate) in zip(self.tracks, self.lines):
            points = track.points[: iteration + 1].T
            for way in ways:
                way.set_data(*points)
            for head in (one, other):
                head.set_data(points[0][-1:], points[1][-1:])
            loss.set_data(t, track.losses[: iteration + 1])
            rate.set_data(t, track.rates[: iteration + 1])

    def frames(self, iterations: Sequence[int]) -> Iterator[Any]:
        """The picture at each iteration as a Pillow image; only what moves is drawn anew."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from PIL import Image

        self.figure.set_dpi(DPI * 0.75)
        canvas = FigureCanvasAgg(self.figure)
        moving = [(line.axes, line) for lines in self.lines for line in lines]
        for artist in (self.title, *(line for _, line in moving)):
            artist.set_animated(True)
        canvas.draw()
        background = canvas.copy_from_bbox(self.figure.bbox)
        for iteration in iterations:
            self.show(iteration)
            canvas.restore_region(background)
            for axes, line in moving:
                axes.draw_artist(line)
            self.figure.draw_artist(self.title)
            yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())


def _frame(left: float, right: float, low: float, high: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(
        (left, low), right - left, high - low, fill=False, linewidth=0.8, edgecolor="#444444"
    )


def descent_figure(surface: Surface, tracks: Sequence[Track], iteration: int) -> Figure:
    """Draw the paths up to an iteration."""
    picture = DescentPlot(surface, tracks)
    picture.show(iteration)
    return plain(picture.figure)


def descent_animation(
    path: Path, surface: Surface, tracks: Sequence[Track], iterations: Sequence[int]
) -> None:
    """Write a GIF that runs through some iterations and stays at the last one for a while.

    Raises:
        OSError: the file cannot be written.
    """
    images = list(DescentPlot(surface, tracks).frames(iterations))
    palette = images[-1].quantize(GIF_COLOURS)  # which has all colours in it
    frames = [image.quantize(palette=palette, dither=0) for image in images]
    times = [FRAME_MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=times, loop=0, optimize=True
    )
