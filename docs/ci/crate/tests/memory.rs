use malloc_stats::testing::{Fragmentation, assert_returns_memory};

#[test]
fn a_model_that_is_dropped_gives_its_memory_back() {
    assert_returns_memory(|| {
        let model = server::load(1);
        assert!(server::answer(&model) > 0);
    });
}

#[test]
fn models_that_take_turns_neither_leak_nor_fragment() {
    let seen = Fragmentation::over(20, || {
        let models = [server::load(1), server::load(2)];
        models.iter().map(|model| server::answer(model)).sum::<u64>()
    });
    assert!(seen.leak_per_cycle() < 4096.0, "{seen}");
    assert!(seen.structural() < 4 << 20, "{seen}");
}
