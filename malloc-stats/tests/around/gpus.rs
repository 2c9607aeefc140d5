//! What one process uses of GPUs is read as what this one does.

use malloc_stats::gpu;

#[test]
fn what_is_read_for_this_process_by_number_is_what_it_reads_of_itself() {
    let own = std::process::id();
    match (gpu::read(), gpu::read_for(own)) {
        (Ok(of_self), Ok((by_number, _))) => {
            let used = |vram: &[gpu::Vram]| -> Vec<_> { vram.iter().map(|v| v.process).collect() };
            assert_eq!(used(&of_self), used(&by_number));
            if let Ok(all) = gpu::processes() {
                assert!(all.iter().all(|process| process.pid != own));
            }
        }
        (Err(reason), Err(same)) => {
            assert_eq!(reason, same);
            println!("skipped in part: {reason}");
        }
        (of_self, by_number) => panic!("{of_self:?} but {by_number:?}"),
    }
}
