#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long PyTorch takes for what `lamina time` measures: an optional peer, which nothing of Lamina needs.

Debian: apt-get install python3-torch libopenblas0-pthread (with the reference BLAS linear layers are ten times slower; the
JSON's `blas` says what was used). Examples:
  peer_pytorch.py mynet --train --batch 64
  peer_pytorch.py resnet50 --batch 1 --lamina build/tools/lamina    both take turns; the ratio is PyTorch's time over Lamina's

Prints one JSON object. Each memory format (channels last, contiguous) is timed on its own; `median_ms` is the faster one's.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
from torch import nn


class MyNet(nn.Sequential):
    """models/mynet.json"""

    image = (3, 28, 28)
    classes = 10

    def __init__(self):
        super().__init__(
            nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(6272, 512), nn.BatchNorm1d(512), nn.ReLU(inplace=True), nn.Linear(512, 10))


class Bottleneck(nn.Module):
    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, 4 * width, 1, bias=False), nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != 4 * width:
            self.downsample = nn.Sequential(nn.Conv2d(channels, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width))

    def forward(self, x):
        skip = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.relu(self.bn3(self.conv3(x)).add_(skip))


class ResNet50(nn.Sequential):
    """models/resnet50.json: He et al. 2015, with the stride in the 3x3 convolution"""

    image = (3, 224, 224)
    classes = 1000

    def __init__(self):
        layers = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
        channels = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = 4 * width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))


class Subject:
    """One network in one memory format, ready to run."""

    def __init__(self, model, args, memory_format):
        torch.manual_seed(0)
        self.train = args.train
        self.net = model().to(memory_format=memory_format).train(args.train)
        if not args.train:
            # As a plan at inference does: batch norms go into the weights.
            self.net = torch.jit.optimize_for_inference(torch.jit.script(self.net.eval())) if args.jit else self.net
        self.x = torch.rand(args.batch, *model.image).mul_(2).sub_(1).to(memory_format=memory_format)
        self.labels = torch.randint(model.classes, (args.batch,))
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-6, momentum=0.9) if args.train else None
        self.times = []

    def run(self):
        start = time.perf_counter()
        if self.train:
            self.optimizer.zero_grad(set_to_none=True)
            nn.functional.cross_entropy(self.net(self.x), self.labels).backward()
            self.optimizer.step()
        else:
            with torch.no_grad():
                self.net(self.x)
        return 1e3 * (time.perf_counter() - start)

    def measure(self, seconds, least):
        for _ in range(2):
            self.run()
        end = time.perf_counter() + seconds
        count = 0
        while count < least or time.perf_counter() < end:
            self.times.append(self.run())
            count += 1


def blas_library():
    """The BLAS that PyTorch has loaded; its own build may hold one inside."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        files = {line.split()[-1] for line in maps if "/" in line}
    names = sorted("/".join(os.path.realpath(f).split("/")[-2:]) for f in files)
    return next((n for n in names if any(word in n for word in ("openblas", "mkl", "libblas", "libblis"))), "built in")


def time_lamina(args):
    command = [args.lamina, "time", args.model, "--batch", str(args.batch), "--threads", str(args.threads), "--json"]
    if args.train:
        command.append("--train")
    line = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1]
    return json.loads(line)["median_ms"]


def main():
    models = {"mynet": MyNet, "resnet50": ResNet50}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(models))
    parser.add_argument("--train", action="store_true", help="training steps: forward, backward, sgd with momentum")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2, help="for each memory format in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jit", action="store_true", help="inference: torch.jit.optimize_for_inference, which folds batch norm")
    parser.add_argument("--lamina", help="the lamina command, timed in turn")
    args = parser.parse_args()
    if min(args.batch, args.threads, args.rounds) < 1 or args.seconds < 0:
        parser.error("--batch, --threads and --rounds must be at least 1")
    torch.set_num_threads(args.threads)
    formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
    subjects = {name: Subject(models[args.model], args, formats[name]) for name in formats}
    lamina = []
    for _ in range(args.rounds):
        for subject in subjects.values():
            subject.measure(args.seconds, 3)
        if args.lamina:
            lamina.append(time_lamina(args))
    medians = {name: statistics.median(subject.times) for name, subject in subjects.items()}
    fastest = min(medians, key=medians.get)
    result = {"model": args.model, "mode": "train" if args.train else "infer", "batch": args.batch, "threads": args.threads,
              "pytorch": torch.__version__, "blas": blas_library(), "jit": args.jit, "median_ms": medians[fastest], "format": fastest,
              "formats": {name: {"median_ms": medians[name], "min_ms": min(subject.times), "runs": len(subject.times)}
                          for name, subject in subjects.items()}}
    if lamina:
        result["lamina_ms"] = statistics.median(lamina)
        result["ratio"] = result["median_ms"] / result["lamina_ms"]
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
