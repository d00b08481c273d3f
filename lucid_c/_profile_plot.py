"""The picture of a profile: time per layer, and a roofline."""

from typing import TYPE_CHECKING

try:
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError(
        "plots need Matplotlib, which cannot be imported "
        f"({error}); install it with: pip install lucid_c[plots]"
    ) from error

from ._reporting import counted, ms, shape_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from .profiling import Profile

# Told apart by people who are colour-blind, too (Okabe and Ito 2008); later ones are grey.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
GREY = "#7F7F7F"


def draw(profile: "Profile") -> Figure:
    """Draw the layers above, the roofline and the sums per algorithm below."""
    style = {
        name: COLOURS[i] if i < len(COLOURS) else GREY for i, name in enumerate(profile.algorithms)
    }
    width = min(60.0, max(12.0, 1.5 + 0.15 * len(profile.rows)))
    figure = Figure(figsize=(width, 11), dpi=100, layout="constrained")
    grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1), width_ratios=(1.4, 1))
    _layers(figure.add_subplot(grid[0, :]), profile, style)
    _roofline(figure.add_subplot(grid[1, 0]), profile, style)
    _sums(figure.add_subplot(grid[1, 1]), profile, style)
    figure.suptitle(
        f"{profile.model}, input {shape_text(profile.input_shape)}: "
        f"{ms(profile.call_seconds)} ms per call, {profile.cpu}, {profile.isa}, "
        f"{counted(profile.threads, 'thread')}"
    )
    return figure


def _layers(axes: "Axes", profile: "Profile", style: dict[str, str]) -> None:
    rows = profile.rows
    for name, colour in style.items():
        mine = [i for i, row in enumerate(rows) if row.algorithm == name]
        axes.bar(mine, [1e3 * rows[i].seconds for i in mine], color=colour, label=name)
    axes.set_xticks(range(len(rows)), [row.name for row in rows], rotation=90, fontsize=7)
    axes.set_xlim(-0.7, len(rows) - 0.3)
    axes.set_ylabel("milliseconds")
    axes.set_title("time per layer")
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", fontsize=8, ncols=min(4, max(1, len(style))))
    axes.margins(y=0.2)


def _sums(axes: "Axes", profile: "Profile", style: dict[str, str]) -> None:
    sums = profile.algorithms
    for i, (name, each) in enumerate(sums.items()):
        axes.barh(i, 1e3 * each["seconds"], color=style[name])
        share = each["seconds"] / profile.seconds if profile.seconds else 0.0
        text = f" {ms(each['seconds'])} ms, {100 * share:.1f} %"
        axes.annotate(text, (1e3 * each["seconds"], i), va="center", fontsize=8)
    axes.set_yticks(range(len(sums)), [f"{each['steps']} x {n}" for n, each in sums.items()])
    axes.set_ylim(len(sums) - 0.4, -0.6)
    axes.margins(x=0.45)
    axes.set_xlabel("milliseconds")
    axes.set_title("time per algorithm")
    axes.grid(axis="x", alpha=0.3)
    axes.set_axisbelow(True)


def _roofline(axes: "Axes", profile: "Profile", style: dict[str, str]) -> None:
    rows = [row for row in profile.rows if row.multiply_adds and row.bytes and row.seconds]
    intensity = [2 * row.multiply_adds / row.bytes for row in rows]
    ridge = profile.peak_flops / profile.bandwidth
    low, high = min([*intensity, ridge]) / 2, max([*intensity, ridge]) * 2
    peak = 1e-9 * profile.peak_flops
    axes.plot([low, ridge, high], [1e-9 * low * profile.bandwidth, peak, peak], "k-", lw=1.2)
    axes.annotate(f"{peak:.0f} GFLOP/s", (low, peak), va="bottom", fontsize=8)
    axes.axhline(peak, color="k", lw=0.5, ls=":")
    axes.annotate(
        f"{1e-9 * profile.bandwidth:.0f} GB/s",
        ((low * ridge) ** 0.5, 1e-9 * profile.bandwidth * (low * ridge) ** 0.5),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
    )
    for name, colour in style.items():
        points = [(x, row) for x, row in zip(intensity, rows, strict=True) if row.algorithm == name]
        if points:
            axes.scatter(
                [x for x, _ in points],
                [row.gflops for _, row in points],
                s=[20 + 1500 * row.seconds / profile.seconds for _, row in points],
                color=colour,
                alpha=0.75,
                edgecolor="white",
                linewidth=0.5,
                label=name,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte (two per multiply-add)")
    axes.set_ylabel("GFLOP/s")
    axes.set_title("roofline: layers with multiply-adds, larger where more time goes")
    axes.grid(which="both", alpha=0.2)
    if rows:
        legend = axes.legend(loc="lower right", fontsize=8)
        for handle in legend.legend_handles:
            handle.set_sizes([40])
