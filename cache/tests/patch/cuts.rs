//! Merges in stretches are those of the whole, to the bit, however weights are cut and whoever makes
//! which stretch.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use plimsoll_cache::Model;
use plimsoll_cache::model::Dtype as ModelDtype;
use plimsoll_cache::patch::{Factors, Merge, MergeError, Patch, Strictness, Term};
use proptest::prelude::*;
use safetensors::Dtype;

use super::files::{File, KOHYA, folder, says};
use super::reference::{self, Case, Form, Written};

/// Bits of any numbers: infinite ones, none and subnormal ones among them.
fn bits(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(count).collect()
}

fn term<'a>(factors: &'a Factors<'static>, strength: f64) -> Term<'a> {
    Term { factors, strength }
}

fn factors(patch: &Patch, model: &Model) -> Factors<'static> {
    let fit = patch.fit(model, Strictness::Strict).unwrap();
    Factors::read(patch, &fit.edits[0].change).unwrap()
}

/// Merges whole, and in stretches between those places, by two threads. `base` is random bits.
fn check(merge: &Merge<'_>, width: usize, seed: u64, cuts: &[u64]) -> Vec<u8> {
    let elements = merge.bytes() / width as u64;
    let mut start = bits(seed, merge.base_bytes() as usize);
    start.resize(merge.bytes() as usize, 0);
    let mut whole = start.clone();
    let non_finite = merge.run(0, &mut whole).unwrap();

    let mut cuts: Vec<u64> = cuts.iter().map(|cut| cut % (elements + 1)).collect();
    cuts.extend([0, elements]);
    cuts.sort_unstable();
    let mut parts = Vec::new();
    let mut rest = &mut *start;
    for pair in cuts.windows(2) {
        let (part, behind) = rest.split_at_mut((pair[1] - pair[0]) as usize * width);
        parts.push(std::sync::Mutex::new((pair[0] * width as u64, part)));
        rest = behind;
    }
    // Neither from the front on.
    let next = AtomicUsize::new(seed as usize % parts.len());
    let (left, count) = (AtomicUsize::new(parts.len()), AtomicU64::new(0));
    let work = || {
        let take = |left: usize| left.checked_sub(1);
        let (order, all) = (Ordering::Relaxed, parts.len());
        while left.try_update(order, order, take).is_ok() {
            let mut part = parts[next.fetch_add(1, order) % all].lock().unwrap();
            let (from, part) = &mut *part;
            count.fetch_add(merge.run(*from, part).unwrap(), order);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    drop(parts);
    let differs = whole.iter().zip(&start).position(|(a, b)| a != b);
    assert_eq!(differs, None, "of {} bytes, cut at {cuts:?}", whole.len());
    assert_eq!(count.into_inner(), non_finite);
    whole
}

fn merge_of(case: &Case, seed: u64, cuts: &[u64]) {
    let folder = folder();
    let zeros = vec![0.0; case.shape().iter().product()];
    let model = File::new()
        .with("a.weight", case.dtype, &case.shape(), &zeros)
        .model(&folder, "base");
    let patches = case.terms.iter().enumerate().map(|(at, written)| {
        let patch = written.file(case).patch(&folder, &format!("patch-{at}"));
        (factors(&patch, &model), written.strength)
    });
    let patches: Vec<_> = patches.collect();
    let terms = patches
        .iter()
        .map(|(factors, strength)| term(factors, *strength));
    let terms: Vec<_> = terms.collect();
    let tensor = &model.tensors()[0];
    let merge = Merge::new(tensor.dtype, &tensor.shape, &terms).unwrap();
    assert_eq!(
        (merge.bytes(), merge.base_bytes()),
        (tensor.bytes, tensor.bytes)
    );
    let is_identity = case.terms.iter().all(|term| term.strength == 0.0);
    assert_eq!(merge.is_identity(), is_identity);
    let width = case.dtype.bitsize() / 8;
    let whole = check(&merge, width, seed, cuts);
    if is_identity {
        assert_eq!(whole, bits(seed, whole.len()));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn any_cuts_give_the_bytes_of_the_whole(
        case in reference::case(),
        seed: u64,
        cuts in prop::collection::vec(any::<u64>(), 0..12),
    ) {
        merge_of(&case, seed, &cuts);
    }
}

fn low_rank(rank: usize, form: Form) -> Written {
    Written {
        rank,
        alpha: Some(3.0),
        strength: 0.7,
        form,
        dtypes: [Dtype::F16, Dtype::BF16, Dtype::F32],
        seed: 5,
    }
}

#[test]
fn rows_longer_than_a_stretch_and_sums_longer_than_are_kept_are_cut_anywhere() {
    let case = |rows, inputs, points, terms| Case {
        dtype: Dtype::F16,
        rows,
        inputs,
        points,
        terms,
    };
    let long = case(3, 2100, None, vec![low_rank(140, Form::Plain)]);
    merge_of(
        &long,
        3,
        &[1, 2, 700, 701, 2099, 2103, 2612, 4200, 5000, 6299],
    );
    let one = case(
        1,
        3000,
        None,
        vec![low_rank(4, Form::Plain), low_rank(1, Form::Difference)],
    );
    merge_of(&one, 4, &[9, 511, 513, 1600, 1024]);
    let deep = case(20, 150, None, vec![low_rank(1100, Form::Plain); 2]);
    merge_of(&deep, 5, &[77, 150, 1001, 2000]);
    // A core with more points than a tile has columns, and one with more ranks than are summed at once.
    let wide = case(3, 2, Some((30, 33)), vec![low_rank(3, Form::Tucker)]);
    merge_of(&wide, 6, &[100, 989, 991, 1700, 3000]);
    let core = case(9, 70, Some((3, 3)), vec![low_rank(40, Form::Tucker)]);
    merge_of(&core, 7, &[4, 629, 631, 1500, 5000]);
}

#[test]
fn appended_rows_and_changed_ones_are_cut_alike() {
    let folder = folder();
    let name = "token_embedding.weight";
    let model = File::new().zeros(name, &[11, 7]).model(&folder, "base");
    let numbers = [0.1, f64::INFINITY, 7.0, -0.0, 1e30, f64::NAN, 3.0];
    let first = File::new()
        .with("<a>", Dtype::F32, &[7], &numbers)
        .with("<b>", Dtype::BF16, &[120, 7], &numbers.repeat(120))
        .patch(&folder, "first");
    let second = File::new()
        .with("emb_params", Dtype::F16, &[1, 7], &numbers)
        .patch(&folder, "second");
    let changed = File::new()
        .with(
            "base_model.model.token_embedding.lora_A.weight",
            Dtype::F32,
            &[1, 7],
            &numbers,
        )
        .with(
            "base_model.model.token_embedding.lora_B.weight",
            Dtype::F32,
            &[11, 1],
            &[0.5; 11],
        )
        .patch(&folder, "changed");
    let all = [&first, &changed, &second].map(|patch| factors(patch, &model));
    let strengths = [0.5, 1.0, -1.0];
    let terms = [0, 1, 2].map(|at| term(&all[at], strengths[at]));
    for (dtype, width) in [(ModelDtype::F16, 2), (ModelDtype::F32, 4)] {
        let merge = Merge::new(dtype, &[11, 7], &terms).unwrap();
        assert_eq!(merge.shape(), [133, 7]);
        assert_eq!(merge.base_bytes(), 77 * width as u64);
        assert_eq!(merge.bytes(), 133 * 7 * width as u64);
        check(&merge, width, 1, &[]);
        check(&merge, width, 2, &[76, 78, 83, 84, 600, 925]);
        check(&merge, width, 3, &(0..931).collect::<Vec<_>>());
    }
}

#[test]
fn differences_of_one_dimension_are_cut_anywhere() {
    let folder = folder();
    let model = File::new()
        .zeros("a.bias", &[70_000])
        .zeros("a.weight", &[70_000, 1])
        .model(&folder, "base");
    let numbers: Vec<f64> = (0..70_000).map(|number| f64::from(number) / 64.0).collect();
    let patch = File::new()
        .with("lora_unet_a.diff_b", Dtype::F16, &[70_000], &numbers)
        .patch(&folder, "lora");
    let factors = factors(&patch, &model);
    let merge = Merge::new(ModelDtype::BF16, &[70_000], &[term(&factors, 1.0)]).unwrap();
    check(&merge, 2, 8, &[1, 32_768, 32_769, 65_536, 69_999]);
}

#[test]
fn stretches_within_elements_and_behind_the_end_are_refused_and_change_nothing() {
    let folder = folder();
    let model = File::new()
        .zeros("a.weight", &[4, 3])
        .model(&folder, "base");
    let numbers = [1.0; 6];
    let patch = File::new()
        .with(
            &format!("lora_unet_a{}", KOHYA[0]),
            Dtype::F32,
            &[2, 3],
            &numbers,
        )
        .with(
            &format!("lora_unet_a{}", KOHYA[1]),
            Dtype::F32,
            &[4, 2],
            &[1.0; 8],
        )
        .patch(&folder, "lora");
    let factors = factors(&patch, &model);
    let merge = Merge::new(ModelDtype::F32, &[4, 3], &[term(&factors, 1.0)]).unwrap();
    let mut bytes = [0; 52];
    for (start, length) in [(1, 4), (4, 5), (2, 2), (u64::MAX, 8), (u64::MAX - 2, 4)] {
        let error = merge.run(start, &mut bytes[..length]).unwrap_err();
        let MergeError::Cut { .. } = error else {
            panic!("{error}");
        };
        says(
            &error.to_string(),
            &[&start.to_string(), "elements of 4 bytes"],
        );
    }
    for (start, length) in [
        (0, 52),
        (48, 4),
        (44, 8),
        (52, 0),
        (u64::MAX - 3, 4),
        (u64::MAX - 3, 0),
    ] {
        let error = merge.run(start, &mut bytes[..length]).unwrap_err();
        let MergeError::Beyond { end: 48, .. } = error else {
            panic!("{error}");
        };
        says(&error.to_string(), &[&start.to_string(), "48"]);
    }
    assert_eq!(bytes, [0; 52]);
    assert_eq!(merge.run(48, &mut []), Ok(0));
    assert_eq!(merge.run(44, &mut bytes[..4]), Ok(0));
    assert_eq!(bytes[..4], 2.0_f32.to_le_bytes());
}
