//! The orders in which threads run.

use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};

/// Runs threads until all of them have ended.
pub(crate) fn together(threads: Vec<Box<dyn FnOnce() + Send>>) {
    let threads: Vec<_> = threads.into_iter().map(shuttle::thread::spawn).collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

/// A thread that owns clones of what it names.
#[macro_export]
macro_rules! thread {
    ($($name:ident),+ => $body:expr) => {{
        $(let $name = ::std::clone::Clone::clone(&$name);)+
        Box::new(move || { $body; }) as Box<dyn FnOnce() + Send>
    }};
}

fn config() -> shuttle::Config {
    let mut config = shuttle::Config::new();
    // Debug builds have large frames.
    config.stack_size = 256 << 10;
    config
}

/// Tries orders at random, and such in which few, well-placed switches matter.
pub(crate) fn try_orders(orders: usize, scene: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::Runner::new(RandomScheduler::new(orders), config()).run(scene.clone());
    shuttle::Runner::new(PctScheduler::new(3, orders / 2), config()).run(scene);
}

/// Tries orders at random alone, where threads spin.
pub(crate) fn try_random_orders(orders: usize, scene: impl Fn() + Send + Sync + 'static) {
    shuttle::Runner::new(RandomScheduler::new(orders), config()).run(scene);
}

/// Tries every order, or the first so many.
pub(crate) fn try_all_orders(most: usize, scene: impl Fn() + Send + Sync + 'static) {
    shuttle::Runner::new(DfsScheduler::new(Some(most), false), config()).run(scene);
}
