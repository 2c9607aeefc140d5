//! What the server holds: models that come and go.

/// Tensors of a model.
pub fn load(number: usize) -> Vec<Vec<u8>> {
    let tensor = |layer: usize| vec![number as u8; [96, 200, 400, 1600][layer % 4] << 10];
    (0..24).map(tensor).collect()
}

/// An answer of one of them.
pub fn answer(model: &[Vec<u8>]) -> u64 {
    model.iter().map(|tensor| u64::from(tensor[0])).sum()
}
