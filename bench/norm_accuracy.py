#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""PyTorch's rows for what bench/norm_accuracy.cc measures: batch statistics of ten million values at mean 1e4, deviation 1e-2.

An optional peer, which nothing of Lamina needs (Debian: python3-torch).
"""
import torch

torch.set_num_threads(1)
for channels in (10, 16, 64):
    rows = 10000000 // channels // 1000 * 1000
    noise = torch.randn(rows, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x = (noise * 1e-2 + 1e4).float()
    mean = x.double().mean(0)
    variance = ((x.double() - mean) ** 2).mean(0)
    images = x.view(1000, rows // 1000, 1, channels).permute(0, 3, 1, 2)
    for name, layout in (("channels last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        norm = torch.nn.BatchNorm2d(channels, momentum=1.0).train()
        norm(images.contiguous(memory_format=layout))
        off = ((norm.running_mean.double() - mean).abs() / mean).max().item()
        ratio = norm.running_var.double() * (rows - 1) / rows / variance
        print("%-22s %4d x %8d   mean off by %.1e   variance off by %.1e (%.6g to %.6g times)"
              % ("pytorch " + name, channels, rows, off, (ratio - 1).abs().max(), ratio.min(), ratio.max()))
