//! Merging against a reference that computes everything in double precision, element by element.

use plimsoll_cache::patch::{Base, Factors, Strictness, Term, merged};
use proptest::prelude::*;
use safetensors::Dtype;

use super::files::{File, KOHYA, decode, encode, folder};

/// What one term adds, written as its definition.
#[derive(Debug, Clone)]
pub struct Written {
    pub rank: usize,
    pub alpha: Option<f64>,
    pub strength: f64,
    pub form: Form,
    pub dtypes: [Dtype; 3],
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Form {
    Plain,
    Tucker,
    Difference,
}

#[derive(Debug, Clone)]
pub struct Case {
    pub dtype: Dtype,
    pub rows: usize,
    pub inputs: usize,
    pub points: Option<(usize, usize)>,
    pub terms: Vec<Written>,
}

fn numbers(seed: u64, count: usize) -> Vec<f64> {
    let mut state = seed | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 * 2.0 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// Numbers as they are once they were written in that type.
fn kept(dtype: Dtype, seed: u64, count: usize) -> Vec<f64> {
    decode(dtype, &encode(dtype, &numbers(seed, count)))
}

fn float() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::BF16)]
}

/// Mostly small sizes, sometimes one that takes several tiles.
fn size(small: usize, large: usize) -> impl Strategy<Value = usize> {
    prop_oneof![8 => 1..=small, 1 => large / 2..=large]
}

fn written(is_conv: bool) -> impl Strategy<Value = Written> {
    let form = prop_oneof![
        4 => Just(Form::Plain),
        u32::from(is_conv) * 3 => Just(Form::Tucker),
        1 => Just(Form::Difference)
    ];
    let strength = prop_oneof![Just(1.0), Just(0.0), -2.0..2.0];
    (
        size(12, 150),
        prop::option::of(0.5..32.0),
        strength,
        form,
        [float(), float(), float()],
        any::<u64>(),
    )
        .prop_map(|(rank, alpha, strength, form, dtypes, seed)| Written {
            // The reference takes the square of it for every element.
            rank: if form == Form::Tucker {
                rank.min(12)
            } else {
                rank
            },
            alpha,
            strength,
            form,
            dtypes,
            seed,
        })
}

pub fn case() -> impl Strategy<Value = Case> {
    let points = prop_oneof![
        Just(None),
        Just(None),
        Just(Some((1, 1))),
        Just(Some((3, 3))),
        Just(Some((1, 2)))
    ];
    (float(), size(20, 300), size(30, 700), points)
        .prop_flat_map(|(dtype, rows, inputs, points)| {
            let terms = prop::collection::vec(written(points.is_some()), 1..=3);
            (Just((dtype, rows, inputs, points)), terms)
        })
        .prop_map(|((dtype, rows, inputs, points), terms)| Case {
            dtype,
            rows,
            inputs: if points.is_some() {
                inputs.min(90)
            } else {
                inputs
            },
            points,
            terms,
        })
}

impl Case {
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = vec![self.rows, self.inputs];
        if let Some((height, width)) = self.points {
            shape.extend([height, width]);
        }
        shape
    }

    fn points(&self) -> usize {
        self.points.map_or(1, |(height, width)| height * width)
    }
}

impl Written {
    pub fn file(&self, of: &Case) -> File {
        let (height, width) = of.points.unwrap_or((1, 1));
        let conv = |shape: [usize; 4]| match of.points {
            None => shape[..2].to_vec(),
            Some(_) => shape.to_vec(),
        };
        let [down, up, mid] = self.shapes(of);
        let add = |file: File, name: String, at: usize, shape: &[usize]| {
            let dtype = self.dtypes[at];
            let numbers = kept(dtype, self.seed + at as u64, shape.iter().product());
            file.with(&name, dtype, shape, &numbers)
        };
        let module = "lora_unet_a";
        let file = match self.form {
            Form::Difference => add(File::new(), format!("{module}.diff"), 0, &of.shape()),
            Form::Plain => {
                let file = add(File::new(), format!("{module}{}", KOHYA[0]), 0, &down);
                add(file, format!("{module}{}", KOHYA[1]), 1, &up)
            }
            Form::Tucker => {
                let point = [self.rank, of.inputs, 1, 1];
                let file = add(
                    File::new(),
                    format!("{module}{}", KOHYA[0]),
                    0,
                    &conv(point),
                );
                let file = add(file, format!("{module}{}", KOHYA[1]), 1, &up);
                let core = [self.rank, self.rank, height, width];
                assert_eq!(core.to_vec(), mid);
                add(file, format!("{module}.lora_mid.weight"), 2, &core)
            }
        };
        match self.alpha.filter(|_| self.form != Form::Difference) {
            Some(alpha) => file.with(&format!("{module}.alpha"), Dtype::F32, &[], &[alpha]),
            None => file,
        }
    }

    fn shapes(&self, of: &Case) -> [Vec<usize>; 3] {
        let (height, width) = of.points.unwrap_or((1, 1));
        let down = [self.rank, of.inputs, height, width];
        let up = [of.rows, self.rank, 1, 1];
        let dimensions = of.shape().len();
        [
            down[..dimensions].to_vec(),
            up[..dimensions].to_vec(),
            vec![self.rank, self.rank, height, width],
        ]
    }

    /// What it adds to each element, and the sum of absolute values in that.
    fn change(&self, of: &Case) -> Vec<(f64, f64)> {
        let (rank, inputs, points) = (self.rank, of.inputs, of.points());
        let columns = inputs * points;
        let get = |at: usize, count| kept(self.dtypes[at], self.seed + at as u64, count);
        if self.form == Form::Difference {
            let all = get(0, of.rows * columns);
            return all
                .iter()
                .map(|x| (self.strength * x, (self.strength * x).abs()))
                .collect();
        }
        let by = self.strength
            * self
                .alpha
                .map_or(1.0, |alpha| f64::from(alpha as f32) / rank as f64);
        let up = get(1, of.rows * rank);
        let first = match self.form {
            Form::Tucker => {
                let (down, mid) = (get(0, rank * inputs), get(2, rank * rank * points));
                let element = |p: usize, column: usize| {
                    let (i, k) = (column / points, column % points);
                    let all =
                        (0..rank).map(|q| mid[(p * rank + q) * points + k] * down[q * inputs + i]);
                    all.fold((0.0, 0.0), |(sum, absolute), x| {
                        (sum + x, absolute + x.abs())
                    })
                };
                (0..rank * columns)
                    .map(|at| element(at / columns, at % columns))
                    .collect::<Vec<_>>()
            }
            _ => get(0, rank * columns)
                .into_iter()
                .map(|x| (x, x.abs()))
                .collect(),
        };
        let element = |row: usize, column: usize| {
            let all = (0..rank).map(|p| (up[row * rank + p], first[p * columns + column]));
            let sum = all.fold((0.0, 0.0), |(sum, absolute), (a, (b, c))| {
                (sum + a * b, absolute + a.abs() * c)
            });
            (by * sum.0, by.abs() * sum.1)
        };
        (0..of.rows * columns)
            .map(|at| element(at / columns, at % columns))
            .collect()
    }
}

/// Half a unit in the last place of that type at that number.
fn half_ulp(dtype: Dtype, number: f64) -> f64 {
    let (digits, least) = match dtype {
        Dtype::F16 => (10, -14),
        Dtype::BF16 => (7, -126),
        _ => (23, -126),
    };
    let exponent = (number.abs().log2().floor() as i32).max(least);
    f64::from(exponent - digits - 1).exp2()
}

fn check(case: &Case) {
    let folder = folder();
    let elements = case.shape().iter().product();
    let base = kept(case.dtype, 99, elements);
    let model = File::new()
        .with("a.weight", case.dtype, &case.shape(), &base)
        .model(&folder, "base");
    let mut expected: Vec<(f64, f64)> = base.iter().map(|x| (*x, x.abs())).collect();
    let mut factors = Vec::new();
    for (at, term) in case.terms.iter().enumerate() {
        let patch = term.file(case).patch(&folder, &format!("patch-{at}"));
        let fit = patch.fit(&model, Strictness::Strict).unwrap();
        factors.push(Factors::read(&patch, &fit.edits[0].change).unwrap());
        for (sum, change) in expected.iter_mut().zip(term.change(case)) {
            *sum = (sum.0 + change.0, sum.1 + change.1);
        }
    }
    let terms: Vec<Term<'_>> = factors
        .iter()
        .zip(&case.terms)
        .map(|(factors, written)| Term {
            factors,
            strength: written.strength,
        })
        .collect();
    let bytes = encode(case.dtype, &base);
    let tensor = &model.tensors()[0];
    let base = Base {
        dtype: tensor.dtype,
        shape: &tensor.shape,
        bytes: &bytes,
    };
    let result = merged(base, &terms).unwrap();
    assert_eq!(
        (result.shape.as_slice(), result.non_finite),
        (&*tensor.shape, 0)
    );
    if case.terms.iter().all(|term| term.strength == 0.0) {
        assert_eq!(result.bytes, bytes);
    }
    // Both round so often.
    let sums = case.terms.iter().map(|term| match term.form {
        Form::Plain => term.rank,
        Form::Tucker => 2 * term.rank,
        Form::Difference => 0,
    });
    let roundings = 2 * (sums.sum::<usize>() + case.terms.len() + 4);
    for (at, (found, (exact, absolute))) in decode(case.dtype, &result.bytes)
        .iter()
        .zip(&expected)
        .enumerate()
    {
        let bound = half_ulp(case.dtype, *exact).max(half_ulp(case.dtype, *found))
            + absolute * roundings as f64 / (1_u64 << 53) as f64;
        let away = (found - exact).abs();
        assert!(
            away <= bound,
            "{at}: {found} instead of {exact}, {away} away and not {bound}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn merges_are_a_reference_in_double_precision_rounded_once(case in case()) {
        check(&case);
    }
}

#[test]
fn several_tiles_in_all_directions_are_right() {
    for (dtype, points, form) in [
        (Dtype::BF16, None, Form::Plain),
        (Dtype::F32, Some((3, 3)), Form::Tucker),
    ] {
        let is_conv = points.is_some();
        check(&Case {
            dtype,
            rows: if is_conv { 300 } else { 530 },
            inputs: if is_conv { 130 } else { 1100 },
            points,
            terms: vec![Written {
                rank: if is_conv { 5 } else { 140 },
                alpha: Some(4.0),
                strength: 0.7,
                form,
                dtypes: [Dtype::F16, Dtype::F32, Dtype::BF16],
                seed: 7,
            }],
        });
    }
}
