/* The renderer's inner loops: skinning, normals, z-buffer, shadows, shading. Called through ctypes.
 *
 * Arrays are dense and row-major; vectors have 3 floats. Cameras are pinholes (x right, y down,
 * z forward), pixel centres lie at integer coordinates. World frame: z up. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

typedef struct {
    float rotation[9], translation[3]; /* world -> camera */
    float fx, fy, cx, cy;
    int32_t width, height;
} Camera;

typedef struct {
    float color[3], second_color[3]; /* linear RGB albedo */
    float scale[2];                  /* pattern periods per metre, along and across */
    float threshold;                 /* share of a period in the first colour */
    float bump, bump_scale;          /* strength of wrinkles, and their number per metre */
    float specular, shininess;
    float wrap; /* light reaching past the terminator (skin, cloth) */
    int32_t pattern, texture;
} Material;

typedef struct {
    float position[3], color[3]; /* color: irradiance at `reference` metres */
    float reference, softness;   /* softness: radius of the shadow's edge in map pixels */
    Camera camera;               /* of the shadow map, looking from the light */
    const float *inverse_depth;  /* shadow map, or NULL */
} Light;

/* Three numbers that are computed alike, and one for nothing (vector extensions of GCC and Clang). */
typedef float Floats __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(16)));

static Floats all(float x) { return (Floats){x, x, x, x}; }

enum { PLAIN, STRIPES, BARS, CHECKS, BLOTCHES, IMAGE };

static float dot(const float *a, const float *b) {
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

static void normalize(float *a) {
    float length = 1.f / (sqrtf(dot(a, a)) + 1e-12f);
    for (int i = 0; i < 3; i++) a[i] *= length;
}

static void to_camera(const Camera *camera, const float *world, float *out) {
    for (int i = 0; i < 3; i++)
        out[i] = dot(camera->rotation + 3 * i, world) + camera->translation[i];
}

/* ---- geometry -------------------------------------------------------------------------------- */

/* Linear blend skinning. bones, weights: (vertices, influences); transforms: (bones, 3, 4). */
void skin(int vertices, int influences, const float *rest, const int32_t *bones,
          const float *weights, const float *transforms, float *posed) {
    for (int v = 0; v < vertices; v++) {
        float blend[12] = {0};
        for (int k = 0; k < influences; k++) {
            float weight = weights[v * influences + k];
            if (weight == 0.f) continue;
            const float *transform = transforms + 12 * bones[v * influences + k];
            for (int i = 0; i < 12; i++) blend[i] += weight * transform[i];
        }
        for (int i = 0; i < 3; i++)
            posed[3 * v + i] = dot(blend + 4 * i, rest + 3 * v) + blend[4 * i + 3];
    }
}

/* Area-weighted vertex normals. */
void vertex_normals(int vertices, const float *position, int faces, const int32_t *corners,
                    float *normals) {
    memset(normals, 0, sizeof(float) * 3 * vertices);
    for (int f = 0; f < faces; f++) {
        const int32_t *c = corners + 3 * f;
        float u[3], w[3];
        for (int i = 0; i < 3; i++) {
            u[i] = position[3 * c[1] + i] - position[3 * c[0] + i];
            w[i] = position[3 * c[2] + i] - position[3 * c[0] + i];
        }
        float normal[3] = {u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2],
                           u[0] * w[1] - u[1] * w[0]};
        for (int k = 0; k < 3; k++)
            for (int i = 0; i < 3; i++) normals[3 * c[k] + i] += normal[i];
    }
    for (int v = 0; v < vertices; v++) normalize(normals + 3 * v);
}

/* floorf and ceilf (of what is not negative) without calls: baseline x86-64 lacks instructions. */
static int32_t floor_int(float x) {
    int32_t i = (int32_t)x;
    return i - (x < (float)i);
}

static int32_t ceil_int(float x) {
    int32_t i = (int32_t)x;
    return i + (x > (float)i);
}

/* ---- z-buffer -------------------------------------------------------------------------------- */

#define NEAREST 0.1f /* m */

/* Where a triangle is drawn. */
struct Target {
    int32_t face;
    float *inverse_depth;
    int32_t *face_id;
    float *barycentric; /* weight / z until the end */
};

static void see(const struct Target *target, size_t o, float w0, float w1, float w2) {
    float near = w0 + w1 + w2; /* 1/z */
    if (near > target->inverse_depth[o] && near < 1 / NEAREST) {
        target->inverse_depth[o] = near;
        if (target->face_id) {
            target->face_id[o] = target->face;
            target->barycentric[2 * o] = w1;
            target->barycentric[2 * o + 1] = w2;
        }
    }
}

static int any(Ints flags) {
#ifdef __SSE2__
    return _mm_movemask_ps((__m128)flags);
#else
    return flags[0] | flags[1] | flags[2] | flags[3];
#endif
}

/* The pixels of a row that lie in a triangle. w: weights / z of its corners at `left`; step: their
 * slopes; o: where the row begins. */
static void draw_row(const struct Target *target, Floats w, Floats step, int left, int right,
                     size_t o) {
    if (any((w < 0) & (step <= 0))) return; /* what is negative and falls stays so */
    int entered = 0; /* a row enters and leaves a triangle once */
    for (int x = left; x <= right; x++) {
        if (!any(w < 0)) {
            entered = 1;
            see(target, o + x, w[0], w[1], w[2]);
        } else if (entered) {
            return;
        }
        w += step;
    }
}

/* Four rows from y on, if there are so many, side by side: of large triangles' boxes most lies
 * beside them. start: weights / z of the corners at (left, y). */
static void draw_rows(const struct Target *target, Floats start, Floats step_u, Floats step_v,
                      int left, int right, int y, int bottom, int width) {
    Floats w[3];
    Ints open = {0}, entered = {0};
    for (int row = 0; row < 4; row++, start += step_v) {
        for (int k = 0; k < 3; k++) w[k][row] = start[k];
        open[row] = y + row > bottom || any((start < 0) & (step_u <= 0)) ? 0 : -1;
    }
    if (!any(open)) return;
    for (int x = left; x <= right; x++) {
        Ints inside = (w[0] >= 0) & (w[1] >= 0) & (w[2] >= 0) & open;
        if (any(inside | entered)) {
            for (int row = 0; row < 4; row++)
                if (inside[row])
                    see(target, (size_t)(y + row) * width + x, w[0][row], w[1][row], w[2][row]);
            entered |= inside;
            open &= inside | ~entered;
            if (!any(open)) return;
        }
        for (int k = 0; k < 3; k++) w[k] += all(step_u[k]);
    }
}

/* Draw triangles into inverse_depth (1/z, larger is nearer; start with zeros), face_id (start with
 * -1) and barycentric (weights of corners 1 and 2; both may be NULL). Homogeneous edge functions
 * (Olano and Greer, 1997): triangles that cross the camera's plane need no clipping. */
void rasterize(const Camera *camera, int vertices, const float *world, int faces,
               const int32_t *corners, float *inverse_depth, int32_t *face_id,
               float *barycentric) {
    int width = camera->width, height = camera->height;
    struct Seen {
        float z, u, v;       /* in the camera frame, m; in pixels */
        double pixel_ray[2]; /* u z, v z */
    } *seen = malloc(sizeof(struct Seen) * (size_t)vertices);
    if (!seen) return;
    int first = vertices, last = -1; /* the others belong to faces that are left out */
    for (int i = 0; i < 3 * faces; i++) {
        first = corners[i] < first ? corners[i] : first;
        last = corners[i] > last ? corners[i] : last;
    }
    for (int v = first; v <= last; v++) {
        float q[3];
        to_camera(camera, world + 3 * v, q);
        float inverse = 1 / fmaxf(q[2], NEAREST);
        seen[v].z = q[2];
        seen[v].u = camera->fx * q[0] * inverse + camera->cx;
        seen[v].v = camera->fy * q[1] * inverse + camera->cy;
        seen[v].pixel_ray[0] = (double)camera->fx * q[0] + (double)camera->cx * q[2];
        seen[v].pixel_ray[1] = (double)camera->fy * q[1] + (double)camera->cy * q[2];
    }
    for (int f = 0; f < faces; f++) {
        const struct Seen *q[3];
        for (int k = 0; k < 3; k++) q[k] = seen + corners[3 * f + k];
        int behind = (q[0]->z < NEAREST) + (q[1]->z < NEAREST) + (q[2]->z < NEAREST);
        if (behind == 3) continue;
        float low[2] = {0, 0}, high[2] = {(float)width, (float)height};
        if (!behind) {
            low[0] = fminf(q[0]->u, fminf(q[1]->u, q[2]->u));
            low[1] = fminf(q[0]->v, fminf(q[1]->v, q[2]->v));
            high[0] = fmaxf(q[0]->u, fmaxf(q[1]->u, q[2]->u));
            high[1] = fmaxf(q[0]->v, fmaxf(q[1]->v, q[2]->v));
        }
        if (high[0] < 0 || high[1] < 0 || low[0] > width - 1 || low[1] > height - 1) continue;
        int left = ceil_int(fmaxf(low[0], 0)), right = (int)fminf(high[0], width - 1.f);
        int top = ceil_int(fmaxf(low[1], 0)), bottom = (int)fminf(high[1], height - 1.f);
        if (left > right || top > bottom) continue;
        double p[3][3], edge[3][3]; /* p: pixel-homogeneous corners (u z, v z, z) */
        for (int k = 0; k < 3; k++) {
            p[k][0] = q[k]->pixel_ray[0];
            p[k][1] = q[k]->pixel_ray[1];
            p[k][2] = q[k]->z;
        }
        for (int k = 0; k < 3; k++) {
            const double *a = p[(k + 1) % 3], *b = p[(k + 2) % 3];
            edge[k][0] = a[1] * b[2] - a[2] * b[1];
            edge[k][1] = a[2] * b[0] - a[0] * b[2];
            edge[k][2] = a[0] * b[1] - a[1] * b[0];
        }
        double determinant = p[0][0] * edge[0][0] + p[0][1] * edge[0][1] + p[0][2] * edge[0][2];
        if (fabs(determinant) < 1e-12) continue;
        Floats step_u = {0}, step_v = {0}, start = {0}; /* weight / z, and its slopes */
        for (int k = 0; k < 3; k++) {
            double s = 1 / determinant;
            step_u[k] = (float)(edge[k][0] * s);
            step_v[k] = (float)(edge[k][1] * s);
            start[k] = (float)((edge[k][0] * left + edge[k][1] * top + edge[k][2]) * s);
        }
        struct Target target = {f, inverse_depth, face_id, barycentric};
        int together = bottom - top < 3 || right - left < 8 ? 1 : 4;
        for (int y = top; y <= bottom; y += together) {
            if (together == 1)
                draw_row(&target, start, step_u, left, right, (size_t)y * width);
            else
                draw_rows(&target, start, step_u, step_v, left, right, y, bottom, width);
            for (int row = 0; row < together; row++) start += step_v;
        }
    }
    /* Once for each pixel instead of each surface in it. */
    for (size_t o = 0; face_id && o < (size_t)width * height; o++)
        if (face_id[o] >= 0)
            for (int k = 0; k < 2; k++) barycentric[2 * o + k] /= inverse_depth[o];
    free(seen);
}

/* ---- procedural surfaces --------------------------------------------------------------------- */

enum { HASH_X = 374761393u, HASH_Y = 668265263u };
static const uint32_t HASH_Z = 2246822519u; /* more than an enum holds */

static uint32_t hash_sum(uint32_t h) {
    h = (h ^ (h >> 13)) * 1274126177u;
    return h ^ (h >> 16);
}

static uint32_t hash(int32_t x, int32_t y, int32_t z) {
    return hash_sum((uint32_t)x * HASH_X + (uint32_t)y * HASH_Y + (uint32_t)z * HASH_Z);
}

/* Three independent value noises in 0..1 at once. */
static void noise3(float x, float y, float z, float *out) {
    int32_t i = floor_int(x), j = floor_int(y), k = floor_int(z);
    float f[3] = {x - i, y - j, z - k};
    for (int a = 0; a < 3; a++) f[a] = f[a] * f[a] * (3 - 2 * f[a]);
    float along_x[2] = {1 - f[0], f[0]}, along_y[2] = {1 - f[1], f[1]}, along_z[2] = {1 - f[2], f[2]};
    uint32_t first = (uint32_t)i * HASH_X + (uint32_t)j * HASH_Y + (uint32_t)k * HASH_Z;
    /* A noise has ten bits of the hash, where they are: the powers of two come off in the end. */
    const Ints bits = {1023, 1023 << 10, 1023 << 20, 0};
    Floats sum = all(0);
    for (int c = 0; c < 8; c++) {
        int a = c & 1, b = (c >> 1) & 1, d = c >> 2;
        float weight = along_x[a] * along_y[b] * along_z[d];
        uint32_t h = hash_sum(first + (a ? HASH_X : 0u) + (b ? HASH_Y : 0u) + (d ? HASH_Z : 0u));
        Ints parts = (Ints){(int32_t)h, (int32_t)h, (int32_t)(h >> 2), 0} & bits;
        sum += all(weight) * __builtin_convertvector(parts, Floats);
    }
    const Floats scale = {1, 1 / 1024.f, 1 / 1048576.f, 0};
    sum = sum * scale / all(1023);
    for (int a = 0; a < 3; a++) out[a] = sum[a];
}

static int wrap_index(int i, int size) {
    i %= size;
    return i < 0 ? i + size : i;
}

/* Bilinear look-up in one texture of a stack, repeating. A texture is a chain of squares of size,
 * size/2, ... 1 texels, one after the other; footprint: texels of the largest per pixel. The size
 * is a power of two: a division per texel would cost more than all the rest. */
static void sample_texture(const uint8_t *stack, int size, int texture, float u, float v,
                           float footprint, float *color) {
    size_t chain = ((size_t)size * size * 4 - 1) / 3;
    const uint8_t *image = stack + 3 * chain * texture;
    for (; footprint > 1.5f && size > 1; footprint /= 2, size /= 2)
        image += 3 * (size_t)size * size;
    float x = u * size - 0.5f, y = v * size - 0.5f;
    int i = floor_int(x), j = floor_int(y);
    float fx = x - i, fy = y - j;
    Floats sum = all(0);
    for (int c = 0; c < 4; c++) {
        float weight = ((c & 1) ? fx : 1 - fx) * ((c >> 1) ? fy : 1 - fy);
        const uint8_t *texel = image + 3 * (((j + (c >> 1)) & (size - 1)) * (size_t)size +
                                            ((i + (c & 1)) & (size - 1)));
        Floats s = (Floats){texel[0], texel[1], texel[2], 0} / all(255);
        sum += all(weight) * s * s; /* about sRGB -> linear */
    }
    for (int k = 0; k < 3; k++) color[k] = sum[k];
}

static float stripe(float x, float threshold) { return x - (float)floor_int(x) < threshold ? 0.f : 1.f; }

/* Albedo at a surface coordinate p (m); pixel: its size there (m). */
static void albedo(const Material *m, const float *p, float pixel, const uint8_t *textures,
                   int texture_size, float *color) {
    float share = 0;
    if (m->pattern == IMAGE) {
        float image[3];
        sample_texture(textures, texture_size, m->texture, p[0] * m->scale[0], -p[2] * m->scale[1],
                       pixel * m->scale[0] * texture_size, image);
        for (int i = 0; i < 3; i++) color[i] = m->color[i] * image[i];
        return;
    }
    if (m->pattern == STRIPES) share = stripe(p[2] * m->scale[1], m->threshold);
    if (m->pattern == BARS) share = stripe((p[0] + p[1]) * m->scale[0], m->threshold);
    if (m->pattern == CHECKS)
        share = 0.5f * (stripe(p[2] * m->scale[1], m->threshold) +
                        stripe((p[0] + p[1]) * m->scale[0], m->threshold));
    if (m->pattern == BLOTCHES) {
        float n[3];
        noise3(p[0] * m->scale[0], p[1] * m->scale[0], p[2] * m->scale[1], n);
        share = fminf(fmaxf((n[0] - m->threshold) * 6 + 0.5f, 0), 1);
    }
    for (int i = 0; i < 3; i++)
        color[i] = m->color[i] + share * (m->second_color[i] - m->color[i]);
}

/* Wrinkles: tilt the normal by the slope of two octaves of noise. */
static void wrinkle(const Material *m, const float *p, float *normal) {
    if (m->bump <= 0) return;
    float s = m->bump_scale, coarse[3], fine[3];
    noise3(p[0] * s, p[1] * s, p[2] * s * 0.7f, coarse);
    noise3(p[0] * s * 2.3f, p[1] * s * 2.3f, p[2] * s * 1.6f, fine);
    for (int i = 0; i < 3; i++) normal[i] += m->bump * (coarse[i] + 0.5f * fine[i] - 0.75f);
    normalize(normal);
}

/* ---- light ----------------------------------------------------------------------------------- */

/* Whether the light's map has nothing nearer at a pixel than 1 / limit; beside it there is nothing. */
static int reaches(const Light *light, int x, int y, float limit) {
    int width = light->camera.width, height = light->camera.height;
    if (x < 0 || y < 0 || x >= width || y >= height) return 1;
    return light->inverse_depth[(size_t)y * width + x] <= limit;
}

/* Share of a light that reaches a point: 4x4 comparisons spread over the soft edge. */
static float visibility(const Light *light, const float *point, const float *normal) {
    if (!light->inverse_depth) return 1;
    float shifted[3], q[3];
    for (int i = 0; i < 3; i++) shifted[i] = point[i] + 0.012f * normal[i];
    const Camera *camera = &light->camera;
    to_camera(camera, shifted, q);
    if (q[2] < 0.05f) return 1;
    float u = camera->fx * q[0] / q[2] + camera->cx, v = camera->fy * q[1] / q[2] + camera->cy;
    if (u < 0 || v < 0 || u > camera->width - 1 || v > camera->height - 1) return 1;
    float limit = 1 / (q[2] - 0.012f), lit = 0;
    int x[4], y[4];
    for (int k = 0; k < 4; k++) {
        x[k] = (int)(u + (k - 1.5f) * 0.5f * light->softness + 0.5f);
        y[k] = (int)(v + (k - 1.5f) * 0.5f * light->softness + 0.5f);
    }
    /* Corners of the grid first: where they agree, the rest mostly does too. */
    for (int c = 0; c < 4; c++) lit += reaches(light, x[c & 1 ? 3 : 0], y[c & 2 ? 3 : 0], limit);
    if (lit == 0 || lit == 4) return lit / 4;
    for (int c = 0; c < 16; c++)
        if ((c % 4) % 3 || (c / 4) % 3) lit += reaches(light, x[c % 4], y[c / 4], limit);
    return lit / 16;
}

/* Second-order spherical harmonics of the ambient irradiance: (9, 3) coefficients. */
static void ambient(const Floats *sh, const float *n, float *color) {
    float basis[9] = {1, n[1], n[2], n[0], n[0] * n[1], n[1] * n[2], 3 * n[2] * n[2] - 1,
                      n[0] * n[2], n[0] * n[0] - n[1] * n[1]};
    Floats sum = all(0);
    for (int k = 0; k < 9; k++) sum += sh[k] * all(basis[k]);
    for (int i = 0; i < 3; i++) color[i] = fmaxf(sum[i], 0);
}

/* Radiance of a panorama (rows from zenith to nadir; its middle column is +y) along a direction. */
static void panorama_color(const float *panorama, int width, int height, const float *direction,
                           float *color) {
    float x = (atan2f(direction[0], direction[1]) / 6.2831853f + 0.5f) * width - 0.5f;
    float y = acosf(fminf(fmaxf(direction[2], -1), 1)) / 3.1415927f * height - 0.5f;
    int i = floor_int(x), j = floor_int(y);
    float fx = x - i, fy = y - j;
    color[0] = color[1] = color[2] = 0;
    for (int c = 0; c < 4; c++) {
        int row = j + (c >> 1), column = wrap_index(i + (c & 1), width);
        row = row < 0 ? 0 : row >= height ? height - 1 : row;
        float weight = ((c & 1) ? fx : 1 - fx) * ((c >> 1) ? fy : 1 - fy);
        for (int k = 0; k < 3; k++)
            color[k] += weight * panorama[3 * ((size_t)row * width + column) + k];
    }
}

/* Shade what `rasterize` drew. surface: (vertices, 3) coordinates for patterns, m; open: (height,
 * width), share of ambient light kept; rgb: (height, width, 3) linear radiance. Where nothing was
 * drawn the panorama shows; without one (NULL) rgb keeps its content. */
void shade(const Camera *camera, const float *world, const float *normals, const float *surface,
           const float *open, const int32_t *corners, const int32_t *face_material,
           const Material *materials, const uint8_t *textures, int texture_size, int lights,
           const Light *light, const float *sh, const float *panorama, int panorama_width,
           int panorama_height, const float *inverse_depth, const int32_t *face_id,
           const float *barycentric, float *rgb) {
    Floats harmonics[9];
    for (int k = 0; k < 9; k++)
        harmonics[k] = (Floats){sh[3 * k], sh[3 * k + 1], sh[3 * k + 2], 0};
    for (int y = 0; y < camera->height; y++)
        for (int x = 0; x < camera->width; x++) {
            size_t o = (size_t)y * camera->width + x;
            if (face_id[o] < 0 && !panorama) continue;
            float ray[3] = {(x - camera->cx) / camera->fx, (y - camera->cy) / camera->fy, 1};
            float view[3]; /* from the eye to the point */
            for (int i = 0; i < 3; i++)
                view[i] = camera->rotation[i] * ray[0] + camera->rotation[3 + i] * ray[1] +
                          camera->rotation[6 + i] * ray[2];
            normalize(view);
            if (face_id[o] < 0) {
                panorama_color(panorama, panorama_width, panorama_height, view, rgb + 3 * o);
                continue;
            }
            const int32_t *c = corners + 3 * face_id[o];
            float weight[3] = {0, barycentric[2 * o], barycentric[2 * o + 1]};
            weight[0] = 1 - weight[1] - weight[2];
            float point[3] = {0}, normal[3] = {0}, p[3] = {0};
            for (int k = 0; k < 3; k++)
                for (int i = 0; i < 3; i++) {
                    point[i] += weight[k] * world[3 * c[k] + i];
                    normal[i] += weight[k] * normals[3 * c[k] + i];
                    p[i] += weight[k] * surface[3 * c[k] + i];
                }
            normalize(normal);
            float facing = -dot(normal, view);
            if (facing < 0) { /* cloth and hair are seen from both sides */
                for (int i = 0; i < 3; i++) normal[i] = -normal[i];
                facing = -facing;
            }
            const Material *m = materials + face_material[face_id[o]];
            float color[3], light_sum[3], gloss[3] = {0};
            float pixel = 1 / (inverse_depth[o] * camera->fx * fmaxf(facing, 0.15f));
            albedo(m, p, pixel, textures, texture_size, color);
            float smooth[3] = {normal[0], normal[1], normal[2]};
            wrinkle(m, p, normal);
            ambient(harmonics, normal, light_sum);
            for (int i = 0; i < 3; i++) light_sum[i] *= open[o];
            for (int l = 0; l < lights; l++) {
                float to_light[3];
                for (int i = 0; i < 3; i++) to_light[i] = light[l].position[i] - point[i];
                float distance = sqrtf(dot(to_light, to_light));
                normalize(to_light);
                float cosine = (dot(normal, to_light) + m->wrap) / (1 + m->wrap);
                if (cosine <= 0) continue;
                float reach = light[l].reference / distance;
                float strength = cosine * reach * reach * visibility(light + l, point, smooth);
                float half[3], shine = 0;
                if (m->specular > 0 && strength > 0) {
                    for (int i = 0; i < 3; i++) half[i] = to_light[i] - view[i];
                    normalize(half);
                    shine = m->specular * powf(fmaxf(dot(normal, half), 0), m->shininess);
                }
                for (int i = 0; i < 3; i++) {
                    light_sum[i] += light[l].color[i] * strength;
                    gloss[i] += light[l].color[i] * strength * shine;
                }
            }
            for (int i = 0; i < 3; i++) rgb[3 * o + i] = color[i] * light_sum[i] + gloss[i];
        }
}

/* Screen-space ambient occlusion: the share (0..1) of ambient light that surfaces within `radius` m
 * leave. samples pairs of opposite neighbours vote: a flat tilted surface has as much on the one
 * side as it lacks on the other. The pattern repeats every 4 x 4 pixels; blur accordingly. */
void ambient_occlusion(const Camera *camera, const float *inverse_depth, float radius, int samples,
                       float *open) {
    int width = camera->width, height = camera->height;
    float *offsets = malloc(sizeof(float) * 2 * 16 * (size_t)samples);
    float *depths = malloc(sizeof(float) * (size_t)width * height); /* 0: nothing is there */
    if (!offsets || !depths) {
        free(offsets);
        free(depths);
        return;
    }
    for (size_t o = 0; o < (size_t)width * height; o++)
        depths[o] = inverse_depth[o] > 0 ? 1 / inverse_depth[o] : 0;
    for (int cell = 0; cell < 16; cell++)
        for (int s = 0; s < samples; s++) {
            float angle = 2.3999632f * s + (hash(cell, 5, 7) & 255) / 40.7f;
            float r = sqrtf((s + 0.5f) / samples), *offset = offsets + 2 * (cell * samples + s);
            offset[0] = r * cosf(angle);
            offset[1] = r * sinf(angle);
        }
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++) {
            size_t o = (size_t)y * width + x;
            open[o] = 1;
            if (inverse_depth[o] <= 0) continue;
            float depth = depths[o], hidden = 0;
            float reach = fminf(radius * camera->fx * inverse_depth[o], 0.1f * width);
            if (reach < 1) continue;
            const float *offset = offsets + 2 * samples * ((y & 3) * 4 + (x & 3));
            for (int s = 0; s < samples; s++) {
                int dx = (int)lrintf(reach * offset[2 * s]);
                int dy = (int)lrintf(reach * offset[2 * s + 1]);
                if (x < abs(dx) || y < abs(dy) || x + abs(dx) >= width || y + abs(dy) >= height)
                    continue;
                float rise = 0;
                for (int sign = -1; sign <= 1; sign += 2) {
                    float other = depths[o + sign * ((ptrdiff_t)dy * width + dx)];
                    float gap = other > 0 ? depth - other : -radius;
                    rise += fminf(fmaxf(gap, -radius), gap > 2 * radius ? 0 : radius);
                }
                if (rise > 0) hidden += fminf(rise / radius, 1);
            }
            open[o] = 1 - hidden / samples;
        }
    free(offsets);
    free(depths);
}
