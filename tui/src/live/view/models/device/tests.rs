//! What a device's memory is taken by, in rows.

use insta::assert_snapshot;
use malloc_stats::{Metric, Vram};

use crate::live::State;
use crate::live::view::made_up::{cache_with_driver, shown};
use crate::live::view::models::ModelTable;

#[test]
fn a_device_with_a_driver_has_all_its_memory_told_apart() {
    let mut state = cache_with_driver();
    let of = |state: &State, width, height| {
        let text = shown(&mut ModelTable::default(), state, width, height);
        let rows = text.lines().skip_while(|line| !line.contains("VRAM"));
        rows.collect::<Vec<_>>().join("\n")
    };
    let whole = shown(&mut ModelTable::default(), &state, 118, 24);
    let pinned = whole.lines().find(|line| line.contains("(pinned staging)"));
    assert!(pinned.unwrap().contains(" 64.0M "), "{whole}");
    // What is told of as a device is not told of again.
    assert_eq!(whole.matches("(other processes)").count(), 1, "{whole}");
    assert_snapshot!(of(&state, 118, 24), @r"
    VRAM gpu0                                    80.00G  NVIDIA H200 at 0000:65:00.0
    held by tensors                              14.00G  of the cache's pool, with what leases left behind
    pool, kept free                               2.00G  for the next load
    outside the pool                              1.00G  weights that the tensor library allocated
    (context and the rest)                      ~512.0M  what NVML counts for this process besides
    (other processes)                           ~52.50G  what else is used
    (driver)                                      1.00G  kept for itself
    free                                          9.00G
    largest block                                 6.00G  67 % of what is free, when one was last refused
    ");
    assert_snapshot!(of(&state, 80, 24), @r"
    VRAM gpu0                                         80.00G  NVIDIA H200..
    held by tensors                                   14.00G  of the cache's..
    pool, kept free                                    2.00G  for the next load
    outside the pool                                   1.00G  weights that..
    (context and the rest)                           ~512.0M  what NVML counts..
    (other processes)                                ~52.50G  what else is used
    (driver)                                           1.00G  kept for itself
    free                                               9.00G
    largest block                                      6.00G  67 % of what..
    ");
    assert_snapshot!(of(&state, 60, 24), @r"
    VRAM gpu0                     80.00G  NVIDIA H200..
    held by tensors               14.00G  of the cache's..
    pool, kept free                2.00G  for the next load
    outside the pool               1.00G  weights that..
    (context and the rest)       ~512.0M  what NVML counts..
    (other processes)            ~52.50G  what else is used
    (driver)                       1.00G  kept for itself
    free                           9.00G
    largest block                  6.00G  67 % of what..
    ");
    // In a container the driver does not tell what each process uses; and nobody tried a block.
    state.vitals.vram.value[0].process = Metric::Unavailable;
    let figures = state.tiers[1].device.as_mut().unwrap();
    figures.largest_block = Metric::Unavailable;
    assert_snapshot!(of(&state, 118, 24), @r"
    VRAM gpu0                                    80.00G  NVIDIA H200 at 0000:65:00.0
    held by tensors                              14.00G  of the cache's pool, with what leases left behind
    pool, kept free                               2.00G  for the next load
    outside the pool                              1.00G  weights that the tensor library allocated
    (context and the rest)                          n/a  ~53.00G with other processes: not told apart here
    (other processes)                               n/a
    (driver)                                      1.00G  kept for itself
    free                                          9.00G
    largest block                                   n/a  none was refused yet
    ");
    // Lost: what is known of it is what the cache says.
    state.vitals.vram.value[0] = Vram {
        pci_bus: "0000:65:00.0".to_owned(),
        absent: Some("GPU is lost".to_owned()),
        ..Vram::default()
    };
    state.tiers[1].device.as_mut().unwrap().free = Metric::Unavailable;
    assert_snapshot!(of(&state, 118, 24), @r"
    VRAM gpu0                                    79.00G  NVIDIA H200 at 0000:65:00.0, GPU is lost
    held by tensors                              14.00G  of the cache's pool, with what leases left behind
    pool, kept free                               2.00G  for the next load
    outside the pool                              1.00G  weights that the tensor library allocated
    (context and the rest)                          n/a
    (other processes)                               n/a
    free                                            n/a
    largest block                                   n/a  none was refused yet
    ");
    // Nothing outside: no row of it.
    state.tiers[1].device.as_mut().unwrap().outside = Metric::Exact(0);
    assert!(!of(&state, 118, 24).contains("outside"));
    // No NVML at all, and a tier whose driver says nothing.
    state.vitals.vram.value.clear();
    state.tiers[1].device = Some(Box::default());
    assert_snapshot!(of(&state, 118, 24), @r"
    VRAM gpu0                                       n/a
    held by tensors                                 n/a  of the cache's pool, with what leases left behind
    pool, kept free                                 n/a  for the next load
    outside the pool                                n/a  weights that the tensor library allocated
    (context and the rest)                          n/a
    (other processes)                               n/a
    free                                            n/a
    largest block                                   n/a  none was refused yet
    ");
}
