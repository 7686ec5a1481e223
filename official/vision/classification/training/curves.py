"""A run's learning curves as a picture."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..engine.console import read_metrics


def draw_curves(folder: Path) -> Path:
    """Draw ``curves.png`` from ``metrics.jsonl``: loss, accuracy and learning rate by epoch."""
    rows = read_metrics(folder)
    train = [row for row in rows if row["event"] == "train"]
    epochs = [row for row in rows if row["event"] == "epoch"]
    figure = Figure(figsize=(12, 3.6))
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.05, right=0.985, bottom=0.14, top=0.9, wspace=0.17)
    loss, accuracy, rate = figure.subplots(1, 3)

    loss.plot(_column(train, "epoch"), _column(train, "loss"), label="training", alpha=0.7)
    loss.plot(_column(epochs, "epoch"), _column(epochs, "val_loss"), "o-", label="validation")
    loss.set(title="Loss", xlabel="epoch", ylim=(0, None))

    accuracy.plot(_column(train, "epoch"), _column(train, "top1"), label="training", alpha=0.7)
    accuracy.plot(_column(epochs, "epoch"), _column(epochs, "val_top1"), "o-", label="validation")
    averaged = [row for row in epochs if "average_top1" in row]
    if averaged:
        loss.plot(
            _column(averaged, "epoch"), _column(averaged, "average_loss"), "o-", label="average"
        )
        accuracy.plot(
            _column(averaged, "epoch"), _column(averaged, "average_top1"), "o-", label="average"
        )
    accuracy.set(title="Top-1 accuracy (%)", xlabel="epoch", ylim=(0, 100))

    rate.plot(_column(train, "epoch"), _column(train, "lr"), color="tab:gray")
    rate.set(title="Learning rate", xlabel="epoch", ylim=(0, None))

    for axes in (loss, accuracy, rate):
        axes.grid(alpha=0.3)
        axes.set_xlim(left=0)
    loss.legend(loc="upper right")
    accuracy.legend(loc="lower right")
    path = folder / "curves.png"
    figure.savefig(path, dpi=100)
    return path


def _column(rows: list, name: str) -> list:
    return [row[name] for row in rows]
