//! Loads three models, answers, drops them; that eight times over.

use malloc_stats::mark;

fn main() {
    mark::tell("baseline");
    for _ in 0..8 {
        let models: Vec<_> = (0..3).map(server::load).collect();
        let answers: u64 = models.iter().map(|model| server::answer(model)).sum();
        assert_eq!(answers, 24 * (1 + 2));
        drop(models);
        mark::tell("cycle");
    }
    mark::tell("dropped");
}
