"""The report's picture."""

from rlvr.rl_core.report import draw_curve


def test_no_panel_of_the_curve_lies_over_another() -> None:
    lines = [
        {"step": step, "reward": 0.5, "solved": 0.5, "length": 1000.0, "entropy": 1e-3}
        for step in range(1, 400)
    ]
    lines += [{"step": 0, "eval/solved": 0.1, "eval/solved_low": 0.0, "eval/solved_high": 0.3}]
    figure = draw_curve(lines, "a title")
    figure.canvas.draw()
    top, *small = [axes.get_tightbbox() for axes in figure.axes]
    assert len(small) == 3
    assert all(panel.y1 <= top.y0 for panel in small)
    assert small[0].x1 <= small[1].x0
    assert small[1].x1 <= small[2].x0
