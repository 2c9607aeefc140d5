//! Storage `heap`: one allocation per tensor from the global allocator, read one after the other.
//! It is what everybody does, and the thing to diagnose.

use std::alloc::Layout;
use std::ptr::NonNull;

use super::read::{Target, open_sources, read_targets};
use crate::error::LoadError;
use crate::model::Model;
use crate::observe::LoadObserver;

/// Blocks are aligned for every element type; what malloc gives anyway.
const ALIGNMENT: usize = 16;

/// The blocks of a model, in the order of its tensors.
#[derive(Debug)]
pub(crate) struct Blocks {
    blocks: Vec<Block>,
}

#[derive(Debug)]
struct Block {
    at: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block is memory that it alone owns.
unsafe impl Send for Block {}
// SAFETY: a shared block is only read.
unsafe impl Sync for Block {}

impl Block {
    /// Cleared, where something is computed in it rather than read to it.
    fn new(bytes: usize, cleared: bool) -> Option<Block> {
        let layout = Layout::from_size_align(bytes, ALIGNMENT).ok()?;
        if bytes == 0 {
            return Some(Block {
                at: NonNull::dangling(),
                layout,
            });
        }
        // SAFETY: the layout's size is not zero.
        let at = NonNull::new(unsafe {
            match cleared {
                true => std::alloc::alloc_zeroed(layout),
                false => std::alloc::alloc(layout),
            }
        })?;
        Some(Block { at, layout })
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated in `new` with this layout.
            unsafe { std::alloc::dealloc(self.at.as_ptr(), self.layout) };
        }
    }
}

impl Blocks {
    /// Allocates and reads every tensor in turn.
    pub(crate) fn load(model: &Model, observer: &dyn LoadObserver) -> Result<Blocks, LoadError> {
        let sources = open_sources(model)?;
        let mut blocks = Vec::with_capacity(model.tensors().len());
        for tensor in model.tensors() {
            observer.before_tensor(model, tensor);
            let bytes = match tensor.tied_to {
                None => usize::try_from(tensor.bytes).unwrap_or(usize::MAX),
                // It is read through the tensor whose bytes it shares.
                Some(_) => 0,
            };
            let block =
                Block::new(bytes, model.recipe().is_some()).ok_or_else(|| LoadError::Memory {
                    model: model.name().to_owned(),
                    bytes: tensor.bytes,
                    reason: "the allocator refused".to_owned(),
                })?;
            let target = Target {
                file: tensor.file,
                offset: tensor.offset,
                at: block.at.as_ptr() as usize,
                bytes,
            };
            // SAFETY: the block is this function's own until it is returned.
            unsafe { read_targets(model, &sources, &[target], sources.threads(), observer) }?;
            blocks.push(block);
            observer.after_tensor(model, tensor);
        }
        sources.still_the_same(model)?;
        Ok(Blocks { blocks })
    }

    /// The bytes of a tensor.
    pub(crate) fn bytes(&self, tensor: usize) -> &[u8] {
        let block = &self.blocks[tensor];
        // SAFETY: `load` filled the whole block, and it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(block.at.as_ptr(), block.layout.size()) }
    }
}
