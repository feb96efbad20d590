"""Slow, literal versions of the published algorithms, in float64, as references for the module."""

import torch

from wanda import find_blocks


def prune_mask(score, sparsity=0.5, pattern=None, group="output"):
    """One weight at a time: sort each group by (score, position), mark the first ones."""
    outputs, width = score.shape
    places = [(i, j) for i in range(outputs) for j in range(width)]
    if pattern is not None:
        keep, size = map(int, pattern.split(":"))
        groups = [[(i, j + k) for k in range(size)] for i in range(outputs) for j in range(0, width, size)]
        counts = [size - keep] * len(groups)
    else:
        if group == "output":
            groups = [[(i, j) for j in range(width)] for i in range(outputs)]
        elif group == "input":
            groups = [[(i, j) for i in range(outputs)] for j in range(width)]
        else:
            groups = [places]
        counts = [round(sparsity * len(members)) for members in groups]
    mask = torch.zeros(outputs, width, dtype=torch.bool)
    for members, count in zip(groups, counts, strict=True):
        for place in sorted(members, key=lambda p: (float(score[p]), p))[:count]:
            mask[place] = True
    return mask


def sparsegpt(
    weight, hessian, sparsity=0.5, pattern=None, mask=None, block=128, damping=0.01, score=None, group="layer"
):
    """Algorithm 1 of SparseGPT, row by row, with the inverse of the remaining Hessian recomputed for each column.

    No Cholesky factor: column j uses the inverse of H restricted to the columns from j on, which the algorithm's factor
    encodes. score: function (weight, column) of a single weight, replacing the algorithm's own score; group: the
    weights of a block that compete.
    """
    weight, hessian = weight.double().clone(), hessian.double().clone()
    outputs, width = weight.shape
    hessian += damping * hessian.diagonal().mean() * torch.eye(width, dtype=torch.float64)
    inverse_diagonal = torch.zeros(width, dtype=torch.float64)  # [H_remaining^-1]_jj when column j is reached
    inverse_rows = []
    for j in range(width):
        inverse = torch.linalg.inv(hessian[j:, j:])
        inverse_diagonal[j] = inverse[0, 0]
        inverse_rows.append(inverse[0])
    if score is None:

        def score(value, k):
            return value**2 / inverse_diagonal[k]

    chosen = torch.zeros(outputs, width, dtype=torch.bool) if mask is None else mask.clone()
    for j in range(width):
        competitions = []  # pairs of places that compete, and how many of them are pruned
        if mask is None and pattern is None and j % block == 0:
            stop = min(j + block, width)
            rows = [[(i, k) for k in range(j, stop)] for i in range(outputs)]
            if group == "layer":
                everything = [place for row in rows for place in row]
                competitions = [(everything, round(sparsity * outputs * stop) - round(sparsity * outputs * j))]
            elif group == "output":
                competitions = [(row, round(sparsity * stop) - round(sparsity * j)) for row in rows]
            else:
                competitions = [(column, round(sparsity * outputs)) for column in zip(*rows, strict=True)]
        if mask is None and pattern is not None:
            keep, size = map(int, pattern.split(":"))
            if j % size == 0:
                competitions = [([(i, j + k) for k in range(size)], size - keep) for i in range(outputs)]
        for places, count in competitions:
            for place in sorted(places, key=lambda p: (float(score(weight[p], p[1])), p))[:count]:
                chosen[place] = True
        for i in range(outputs):
            if chosen[i, j]:
                weight[i, j:] -= weight[i, j] / inverse_diagonal[j] * inverse_rows[j]
                weight[i, j] = 0
    return weight, chosen


@torch.no_grad()
def admm(weight, hessian, sparsity=0.5, pattern=None, group="output", mask=None, iterations=20, ramp=15, damping=0.1):
    """ADMM as arXiv 2401.02938 states it: a feature per row, and a solve with the whole Hessian in each iteration."""
    norm = hessian.double().diagonal().sqrt()[:, None]  # [in, 1]
    gram = hessian.double() / (norm @ norm.T) + damping * torch.eye(len(norm), dtype=torch.float64)
    dense = norm * weight.double().T  # [in, out]
    current, dual, chosen = dense, torch.zeros_like(dense), None if mask is None else mask.T
    for step in range(1, iterations + 1):
        if mask is None and step <= ramp:
            share = 1 - (1 - min(step / ramp, 1)) ** 3
            score = (current + dual).abs().T
            if pattern is None:
                chosen = prune_mask(score, share * sparsity, group=group).T
            else:
                keep, size = map(int, pattern.split(":"))
                chosen = prune_mask(score, pattern=f"{size - round(share * (size - keep))}:{size}").T
        sparse = torch.where(chosen, 0, current + dual)
        dual = dual + current - sparse
        current = torch.linalg.solve(gram + torch.eye(len(norm), dtype=torch.float64), gram @ dense + sparse - dual)
    return (torch.where(chosen, 0, current + dual) / norm).T, chosen.T


def layer_inputs(model, block, calibration):
    """The inputs of one block's layers in a run of the whole model: dict from name to [tokens, in], float64."""
    seen = {layer.name: [] for layer in block.layers}

    def keep(name):
        return lambda module, args: seen[name].append(args[0].reshape(-1, args[0].shape[-1]).double())

    handles = [layer.module.register_forward_pre_hook(keep(layer.name)) for layer in block.layers]
    model(calibration, use_cache=False)
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts) for name, parts in seen.items()}


@torch.no_grad()
def walk(model, calibration, prune_layer):
    """Block by block: run the whole model as pruned so far, record the inputs of the block's layers, prune them."""
    for block in find_blocks(model):
        inputs = layer_inputs(model, block, calibration)
        for layer in block.layers:
            layer.replace(prune_layer(layer.weight.double(), inputs[layer.name]).to(layer.weight.dtype))
