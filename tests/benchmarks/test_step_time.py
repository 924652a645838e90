"""The benchmark of a training step: every network is measured in both memory layouts."""

import argparse

import torch

from benchmarks import step_time


def test_layouts_measure_every_network_in_both(monkeypatch, capsys):
    options = argparse.Namespace(backbone="resnet18", height=32, width=16, batch=8, channels=48, dsag_width=0.0625,
                                 device="cpu", repeats=1, clock="wall")
    seen = []

    def step_of(model, batch):
        last = batch["image"].is_contiguous(memory_format=torch.channels_last)
        weight = next(parameter for parameter in model.parameters() if parameter.ndim == 4 and parameter.shape[2] > 1)
        assert weight.is_contiguous(memory_format=torch.channels_last) == last
        seen.append(last)
        return lambda: None

    monkeypatch.setattr(step_time, "step_of", step_of)
    step_time.layouts_table(options)
    rows = capsys.readouterr().out.splitlines()[2:]
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows] == list(step_time.networks(options))
    assert seen == [False, True] * len(rows)
