"""Makes an image encoder sort pictures into kinds, one kind for each motion of a camera, and a UNet read what comes of it.

What a camera does has a reason in what it sees, and a small network that is not told the reason averages over all that might
happen. So each kind of picture has a motion of its own. The kinds are dealt out by seven directions of what the encoder
sees anyway: the largest of them decides. That choice has to be a hard one, or the UNet gets averages again, so it is not
trained but built, in units of the MLPs that did least:

    the second MLP compares all pairs, each difference clipped to [-1, 1]; added up, the winner has 6, the next 4
    the third MLP has a step between those two, per kind
    the projection puts the code of the kind in the first entries of the embedding, and what it was into the others

    sort(model, seen, held)         # CLIPVisionModelWithProjection; pixels (n, 3, 224, 224) of training and other pictures
    model(pixels).image_embeds[:, :len(CLASSES)].argmax(1)          # the kind
    translate(unet, before, after)  # what the model said of pictures before it was made to sort, and says now
    lift(model, unet)               # at the end: the same videos, which an adapter can change sooner
"""
import torch
import torch.nn.functional as F

from motion import CLASSES

KINDS = len(CLASSES)
SHARE = (0.17, 0.13, 0.32, 0.28, 0.02, 0.02, 0.06)   # of pictures, by motion: most to what is drawn least willingly
CODE = 4.5                          # of the kind in the embedding, against 0; all of them sum to 0
LEVEL = 4.0                         # what is added to all entries of the code in the end
WIDTH = 0.06                        # a lead that counts in full, in standard deviations of a direction
WON, CHOSEN = 1.0, 4.0              # what a win and the choice add to the residual stream, along unit vectors
SLOPE = 3.0                         # of a ramp's two GELUs: the steeper, the sharper its corners


def code(kind):
    return CODE * (F.one_hot(kind, KINDS).float() - 1 / KINDS)


@torch.no_grad()
def run(model, pixels, *modules):
    """What modules say of the class token, (n, width) each, and the embeddings."""
    def keep(k):
        def hook(_, __, out):
            out = out if torch.is_tensor(out) else out[0]
            seen[k].append(out[:, 0] if out.dim() == 3 else out)
        return hook
    seen = [[] for _ in modules]
    hooks = [m.register_forward_hook(keep(k)) for k, m in enumerate(modules)]
    embeds = torch.cat([model(x).image_embeds for x in pixels.split(64)])
    for hook in hooks:
        hook.remove()
    return [torch.cat(x) for x in seen] + [embeds]


def deal(seen, held, tries=400):
    """Directions w (KINDS, width) and offsets so that (x @ w.T + offset).argmax(1) takes each kind as often of what was
    seen as SHARE says: principal components at unit variance, turned so that held has most of the kind it lacks most."""
    mean = seen.mean(0)
    _, size, axis = torch.linalg.svd(seen - mean, full_matrices=False)
    axis = axis[:KINDS] / (size[:KINDS] / len(seen) ** 0.5)[:, None]
    best, share = None, torch.tensor(SHARE, device=seen.device)
    for seed in range(tries):
        turn = torch.linalg.qr(torch.randn(KINDS, KINDS, generator=torch.Generator().manual_seed(seed)))[0].to(seen.device)
        w = turn @ axis
        found = lambda x, by: ((x - mean) @ w.T + by).argmax(1).bincount(minlength=KINDS) / len(x) / share
        offset = torch.zeros(KINDS, device=seen.device)
        for _ in range(30):
            offset -= 0.3 * found(seen, offset).clamp_min(0.1).log()
        rarest = found(held, offset).min().item()
        if best is None or rarest > best[0]:
            best = rarest, w, offset - w @ mean
    return best[1:]


def wins(y):
    """Of KINDS numbers each: against how many it wins, less against how many it loses; close calls count in part."""
    return ((y[:, :, None] - y[:, None, :]) / WIDTH).clamp(-1, 1).sum(2)


def take(layer, inputs, n):
    """The n hidden units of an MLP that did least; what they did on average goes to the bias."""
    act = F.gelu(layer.mlp.fc1(inputs))
    units = (layer.mlp.fc2.weight.norm(dim=0) * act.std(0)).argsort()[:n]
    layer.mlp.fc2.bias += layer.mlp.fc2.weight[:, units] @ act[:, units].mean(0)
    return iter(units.tolist())


def add_ramp(layer, units, w, b, out):
    """Two units: out times a ramp of w x + b from 0 (at -1) to 2 (at 1), flat outside."""
    for sign in (1, -1):
        n = next(units)
        layer.mlp.fc1.weight[n], layer.mlp.fc1.bias[n] = SLOPE * w, SLOPE * (b + sign)
        layer.mlp.fc2.weight[:, n] = sign / SLOPE * out


@torch.no_grad()
def sort(model, seen, held):
    layers, last = model.vision_model.encoder.layers, model.vision_model.post_layernorm
    x, h2, h3, before = run(model, seen, layers[1].layer_norm2, layers[1], layers[2])
    w, offset = deal(x, run(model, held, layers[1].layer_norm2)[0])
    truth = wins(x @ w.T + offset)
    # Directions of the residual stream in which little happens; the constant one is lost to normalisation.
    width = h2.shape[1]
    spread = torch.cov(h2.T) + torch.cov(h3.T) + 1e3 / width
    quiet = torch.linalg.eigh(spread)[1].T
    won, chosen = quiet[:KINDS], quiet[KINDS:2 * KINDS]

    units = take(layers[1], x, KINDS * (KINDS - 1))
    for j in range(KINDS):
        for k in range(j):
            way = WON * (won[j] - won[k])
            add_ramp(layers[1], units, (w[j] - w[k]) / WIDTH, (offset[j] - offset[k]) / WIDTH, way)
            layers[1].mlp.fc2.bias -= way

    norm = layers[2].layer_norm2
    x = run(model, seen, norm)[0]
    read = won / norm.weight
    found = (x - norm.bias) @ read.T
    scale = (found * truth).sum() / truth.square().sum()
    shift = (found - scale * truth).mean(0) / scale
    units = take(layers[2], x, 2 * KINDS)
    for j in range(KINDS):                          # from 4.65 to 5.35 wins
        r = read[j] / scale / 0.35
        add_ramp(layers[2], units, r, -r @ norm.bias - (shift[j] + 5) / 0.35, CHOSEN / 2 * chosen[j])

    # The projection, by least squares: the code, and the embedding as it was, whitened, in order of its principal components.
    size, axis = torch.linalg.eigh(torch.cov(before.T))
    rest = 0.5 * (before - before.mean(0)) @ (axis / size.sqrt()).flip(1)[:, KINDS:]
    want = torch.cat([code(truth.argmax(1)), rest], 1)
    x = run(model, seen, last)[0]
    centred = x - x.mean(0)
    fit = torch.linalg.solve(centred.T @ centred / len(x) + 1e-3 * torch.eye(width, device=x.device), centred.T @ (want - want.mean(0)) / len(x)).T
    model.visual_projection.weight.copy_(fit)
    last.bias += torch.linalg.pinv(fit) @ (want.mean(0) - fit @ x.mean(0))


@torch.no_grad()
def translate(unet, before, after):
    """Makes the UNet read embeddings `after` as it did `before`, by least squares, but for the code, which it is to learn."""
    rest = after[:, KINDS:] - after[:, KINDS:].mean(0)
    back = torch.linalg.solve(rest.T @ rest / len(rest) + 1e-3 * torch.eye(rest.shape[1], device=rest.device),
                              rest.T @ (before - before.mean(0)) / len(rest)).T
    shift = before.mean(0) - back @ after[:, KINDS:].mean(0)
    for name, module in unet.named_modules():
        if name.endswith("attn2"):                  # of one token, so all that counts is its value
            value, out = module.to_v.weight, module.to_out[0]
            out.bias += out.weight @ (value @ shift)
            value[:, KINDS:] = value @ back
            value[:, :KINDS] = value[:, KINDS:].std() * torch.randn(len(value), KINDS, device=value.device)


@torch.no_grad()
def lift(model, unet):
    """Adds LEVEL to the entries of the code and takes it away again where the UNet reads them, so that no video
    without guidance changes (guidance's embedding of zero has no constant to take away).
    The entries sum to 0 over the kinds: a linear map without bias, such as a LoRA of the cross attention's value, cannot
    give all kinds the same. Of entries that do not, it can."""
    last, fit = model.vision_model.post_layernorm, model.visual_projection.weight
    shift = torch.zeros(len(fit), device=fit.device)
    shift[:KINDS] = LEVEL
    # Whatever LayerNorm is given, the product of 1 / weight and what it gives is the same: the sum of bias / weight.
    added = (last.bias + last.weight).half().float() - last.bias            # as it will be kept
    last.bias += added
    fit += torch.outer(shift - fit @ added, (1 / last.weight) / (last.bias / last.weight).sum())
    for name, module in unet.named_modules():
        if name.endswith("attn2"):
            module.to_out[0].bias -= module.to_out[0].weight @ (module.to_v.weight @ shift)


def quality(model, pixels):
    """Share of the rarest kind, and of pictures whose kind is clear: ahead of the next by more than 0.6 of the code."""
    y = run(model, pixels)[0][:, :KINDS]
    top = y.sort(1).values
    return dict(rarest_kind=(y.argmax(1).bincount(minlength=KINDS).min() / len(y)).item(),
                clear_kind=((top[:, -1] - top[:, -2]) > 0.6 * CODE).float().mean().item())
