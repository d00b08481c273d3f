# SPDX-License-Identifier: MIT
"""Pictures of the results, with matplotlib."""

import os

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402
from engines import OURS  # noqa: E402
from report import MIB, engines_of, size_text  # noqa: E402

# The palette of Okabe and Ito, which most eyes tell apart; lucid_c black.
COLORS = {
    "lucid_c": "#000000",
    "torch": "#E69F00",
    "torch channels_last": "#F0E442",
    "torch.compile": "#D55E00",
    "onnxruntime": "#0072B2",
    "openvino": "#009E73",
    "openvino default": "#56B4E9",
}
MARKERS = dict(zip(COLORS, "osD^vP*", strict=True))


def draw(document, folder):
    """Draw a suite's pictures into ``folder``; gives the names of the files."""
    rows = document["rows"]
    if not rows:
        return []
    figures = PICTURES[document["suite"]](rows)
    names = []
    for name, figure in figures.items():
        machine = document["machine"]
        strip = 0.2 / figure.get_figheight()  # below the axes, for the line about the machine
        figure.get_layout_engine().set(rect=(0, strip, 1, 1 - strip))
        figure.text(
            0.995,
            0.005,
            f"{machine['cpu']}, {machine['lucid_c']['isa']}, {document['date'][:10]}",
            ha="right",
            va="bottom",
            fontsize=7,
            color="0.4",
        )
        temporary = folder / f"{name}.tmp"
        figure.savefig(temporary, format="png", dpi=120)
        os.replace(temporary, folder / f"{name}.png")
        plt.close(figure)
        names.append(f"{name}.png")
    return names


def grouped(rows, *keys):
    """{values of the keys: rows}, in the order of appearance."""
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def median(row, engine):
    """Seconds of a call, or None."""
    entry = row["engines"].get(engine, {})
    return entry["seconds"][1] if "seconds" in entry else None


def timed_engines(rows):
    return [e for e in engines_of(rows) if any(median(row, e) is not None for row in rows)]


def bars_per_model(axes, rows, engines, value, spread=None, highest=None):
    """A group of bars for each row, one bar per engine; those above ``highest`` are cut off there
    and have their number written on top."""
    width = 0.84 / max(1, len(engines))
    for k, engine in enumerate(engines):
        for i, row in enumerate(rows):
            height = value(row, engine)
            if height is None:
                continue
            limits = spread(row, engine) if spread else None
            at = i + (k - (len(engines) - 1) / 2) * width
            if highest is not None and height > highest:
                axes.text(at, highest, f"{height:.1f}", ha="center", va="bottom", fontsize=6)
                height, limits = highest, None
            axes.bar(
                at,
                height,
                width,
                color=COLORS[engine],
                yerr=[[height - limits[0]], [limits[2] - height]] if limits else None,
                error_kw={"linewidth": 0.8, "ecolor": "0.3"},
            )
    axes.set_xticks(range(len(rows)), [row["model"] for row in rows], rotation=35, ha="right")
    axes.set_xlim(-0.6, len(rows) - 0.4)
    axes.grid(axis="y", color="0.9")
    axes.set_axisbelow(True)


def legend(figure, engines, line=False):
    handles = [
        plt.Line2D([], [], color=COLORS[e], marker=MARKERS[e])
        if line
        else plt.Rectangle((0, 0), 1, 1, color=COLORS[e])
        for e in engines
    ]
    columns = min(len(engines), int(figure.get_figwidth() / 1.8))
    figure.legend(handles, engines, loc="outside upper center", ncols=columns, frameon=False)


def quartiles_of_ratio(row, engine):
    return row["engines"][engine]["ratio"]


HIGHEST_RATIO = 4.0


def inference(rows):
    """A panel for each batch size and thread count: peers' times as multiples of ours."""
    groups = grouped(rows, "batch", "threads")
    engines = [e for e in timed_engines(rows) if e != OURS]
    if not engines:
        return {"inference": alone(rows, groups)}
    figure, panels = plt.subplots(
        len(groups),
        1,
        figsize=(max(7.0, 1.1 * max(map(len, groups.values())) + 2), 3.1 * len(groups) + 0.8),
        layout="constrained",
        squeeze=False,
    )

    def ratio(row, engine):
        entry = row["engines"].get(engine, {})
        return entry["ratio"][1] if "ratio" in entry else None

    for axes, ((batch, threads), members) in zip(panels[:, 0], groups.items(), strict=True):
        bars_per_model(axes, members, engines, ratio, quartiles_of_ratio, HIGHEST_RATIO)
        axes.axhline(1, color=COLORS[OURS], linewidth=1.5)
        axes.set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        axes.set_ylabel("time / lucid_c's time")
    legend(figure, engines)
    return {"inference": figure}


def alone(rows, groups):
    """Our own speed, where there is nobody to compare with."""
    figure, panels = plt.subplots(
        len(groups), 1, figsize=(8, 3 * len(groups) + 0.8), layout="constrained", squeeze=False
    )
    for axes, ((batch, threads), members) in zip(panels[:, 0], groups.items(), strict=True):
        bars_per_model(axes, members, [OURS], ms_per_image)
        axes.set_title(f"batch {batch}, {threads} thread{'s' * (threads > 1)}", fontsize=10)
        axes.set_ylabel("ms per image")
    legend(figure, [OURS])
    return figure


def ms_per_image(row, engine):
    seconds = median(row, engine)
    return None if seconds is None else seconds / row["batch"] * 1e3


def scaling(rows):
    """A row of panels for each model: over batch size, image size, threads (if there are two)."""
    models = list(dict.fromkeys(row["model"] for row in rows))
    engines = timed_engines(rows)
    axes_shown = ("batch", "size", "threads")[: 2 + (len({row["threads"] for row in rows}) > 1)]
    figure, panels = plt.subplots(
        len(models),
        len(axes_shown),
        figsize=(4.3 * len(axes_shown), 3.6 * len(models) + 0.8),
        layout="constrained",
        squeeze=False,
    )
    for line, model in zip(panels, models, strict=True):
        mine = [row for row in rows if row["model"] == model]
        for axes, axis in zip(line, axes_shown, strict=True):
            points = [row for row in mine if row["axis"] == axis]
            SCALING_PANELS[axis](axes, points, engines)
            axes.set_title(model, fontsize=10)
            axes.grid(color="0.9")
    legend(figure, engines, line=True)
    return {"scaling": figure}


def curve(axes, points, engine, x, y, **style):
    found = [(x(row), y(row, engine)) for row in points if median(row, engine) is not None]
    if found:
        found.sort()
        axes.plot(
            *zip(*found, strict=True),
            color=COLORS[engine],
            marker=MARKERS[engine],
            markersize=4,
            **style,
        )


def over_batch(axes, points, engines):
    for engine in engines:
        curve(axes, points, engine, lambda row: row["batch"], ms_per_image)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row["batch"] for row in points], [str(row["batch"]) for row in points])
    axes.set_ylim(bottom=0)
    axes.set_xlabel("batch size")
    axes.set_ylabel("ms per image")


def over_size(axes, points, engines):
    def thousand_pixels(row):
        return row["height"] * row["width"] / 1000

    def per_pixels(row, engine):
        return ms_per_image(row, engine) / thousand_pixels(row)

    for engine in engines:
        curve(axes, points, engine, thousand_pixels, per_pixels)
    axes.set_xscale("log")
    axes.set_xticks(
        [thousand_pixels(row) for row in points],
        [size_text(row) for row in points],
        rotation=60,
        fontsize=8,
    )
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("image size, batch 1")
    axes.set_ylabel("ms per 1000 pixels")


def over_threads(axes, points, engines):
    for (batch,), members in grouped(points, "batch").items():
        for engine in engines:
            one = [ms_per_image(row, engine) for row in members if row["threads"] == 1]
            if not one or one[0] is None:
                continue
            curve(
                axes,
                members,
                engine,
                lambda row: row["threads"],
                lambda row, engine, one=one: one[0] / ms_per_image(row, engine),
                linestyle="-" if batch == 1 else "--",
            )
    counts = sorted({row["threads"] for row in points})
    axes.plot(counts, counts, color="0.7", linewidth=1, zorder=0)
    axes.set_xticks(counts)
    axes.set_xlabel("threads (solid: batch 1, dashed: batch 8)")
    axes.set_ylabel("speed / that of one thread")


SCALING_PANELS = {"batch": over_batch, "size": over_size, "threads": over_threads}


def training(rows):
    """Time of a step for one image; peak memory beside it."""
    engines = timed_engines(rows)
    if not engines:
        return {}
    labelled = [
        {**row, "model": f"{row['model']}\nbatch {row['batch']}, {row['threads']} thr."}
        for row in rows
        if any(median(row, engine) is not None for engine in engines)
    ]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    bars_per_model(left, labelled, engines, ms_per_image)
    left.set_ylabel("ms per image, forward + backward + SGD")

    def peak(row, engine):
        entry = row["engines"].get(engine, {})
        return entry["peak_rss"] / MIB if "peak_rss" in entry else None

    bars_per_model(right, labelled, engines, peak)
    right.set_ylabel("peak resident MiB")
    legend(figure, engines)
    return {"training": figure}


PHASES = {"start": "0.8", "import": "#56B4E9", "load": "#0072B2", "first": "#E69F00"}


def coldstart(rows):
    """Stacked phases from the start of the process to the first result."""
    figure, panels = plt.subplots(
        1, len(rows), figsize=(5.6 * len(rows) + 1, 3.6), layout="constrained", squeeze=False
    )
    for axes, row in zip(panels[0], rows, strict=True):
        engines = [e for e in engines_of([row]) if "total" in row["engines"][e]]
        for at, engine in enumerate(engines):
            entry, left = row["engines"][engine], 0.0
            for phase, color in PHASES.items():
                axes.barh(at, entry[phase], left=left, color=color)
                left += entry[phase]
            peak = entry["peak_rss_first"] / MIB
            axes.text(left, at, f" {left:.2f} s, {peak:.0f} MiB", va="center", fontsize=8)
        axes.set_yticks(range(len(engines)), engines)
        axes.invert_yaxis()
        axes.margins(x=0.3)
        axes.set_xlabel("seconds to the first result")
        axes.set_title(row["model"], fontsize=10)
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in PHASES.values()]
    names = ["interpreter", "import", "load", "first call"]
    figure.legend(handles, names, loc="outside upper center", ncols=4, frameon=False)
    return {"coldstart": figure}


def memory(rows):
    """Peak resident size over the batch size."""
    groups = grouped(rows, "model")
    engines = [
        e for e in engines_of(rows) if any("peak_rss" in r["engines"].get(e, {}) for r in rows)
    ]
    figure, panels = plt.subplots(
        1, len(groups), figsize=(5 * len(groups) + 1, 4), layout="constrained", squeeze=False
    )
    for axes, ((model,), members) in zip(panels[0], groups.items(), strict=True):
        for engine in engines:
            found = [
                (row["batch"], row["engines"][engine]["peak_rss"] / MIB)
                for row in members
                if "peak_rss" in row["engines"].get(engine, {})
            ]
            axes.plot(
                *zip(*found, strict=True),
                color=COLORS[engine],
                marker=MARKERS[engine],
                markersize=4,
            )
        axes.set_xscale("log", base=2)
        batches = sorted({row["batch"] for row in members})
        axes.set_xticks(batches, map(str, batches))
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(color="0.9")
        axes.set_xlabel("batch size")
        axes.set_ylabel("peak resident MiB")
        axes.set_title(model, fontsize=10)
    legend(figure, engines, line=True)
    return {"memory": figure}


def spinning(rows):
    """No picture: the table says it."""
    return {}


PICTURES = {
    "inference": inference,
    "scaling": scaling,
    "training": training,
    "coldstart": coldstart,
    "memory": memory,
    "spinning": spinning,
}
