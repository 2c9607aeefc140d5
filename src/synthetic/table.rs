//! A tensor table in the making: names under prefixes, shapes, and how many elements they have.

use std::fmt::{self, Write};

/// Collects tensors, or, where only their size is wanted, just counts their elements.
#[derive(Default)]
pub struct Table {
    prefix: String,
    /// Names and shapes, if they are kept.
    rows: Option<Vec<(String, Vec<usize>)>>,
    elements: u64,
}

impl Table {
    /// A table that keeps what is put into it.
    pub fn keeping() -> Self {
        Self {
            rows: Some(Vec::new()),
            ..Self::default()
        }
    }

    /// How many elements the tensors have that were put in.
    pub fn elements(&self) -> u64 {
        self.elements
    }

    /// The names and shapes that were kept.
    pub fn into_rows(self) -> Vec<(String, Vec<usize>)> {
        self.rows.unwrap_or_default()
    }

    /// Puts what `fill` puts under `name.`.
    pub fn within(&mut self, name: fmt::Arguments<'_>, fill: impl FnOnce(&mut Self)) {
        let length = self.prefix.len();
        // Writing to a String cannot fail.
        let _ = write!(self.prefix, "{name}.");
        fill(self);
        self.prefix.truncate(length);
    }

    /// Puts one tensor in.
    pub fn put(&mut self, name: &str, shape: &[usize]) {
        self.elements += shape
            .iter()
            .map(|&dimension| dimension as u64)
            .product::<u64>();
        if let Some(rows) = &mut self.rows {
            rows.push((format!("{}{name}", self.prefix), shape.to_vec()));
        }
    }

    /// A matrix from `inputs` to `outputs`, without bias.
    pub fn matrix(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.within(format_args!("{name}"), |table| {
            table.put("weight", &[outputs, inputs])
        });
    }

    /// A matrix with bias.
    pub fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.within(format_args!("{name}"), |table| {
            table.put("weight", &[outputs, inputs]);
            table.put("bias", &[outputs]);
        });
    }

    /// A square convolution with bias.
    pub fn conv(&mut self, name: &str, outputs: usize, inputs: usize, kernel: usize) {
        self.within(format_args!("{name}"), |table| {
            table.put("weight", &[outputs, inputs, kernel, kernel]);
            table.put("bias", &[outputs]);
        });
    }

    /// A layer or group norm: scale and shift.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.within(format_args!("{name}"), |table| {
            table.put("weight", &[width]);
            table.put("bias", &[width]);
        });
    }

    /// A root-mean-square norm: scale only.
    pub fn scale_norm(&mut self, name: &str, width: usize) {
        self.within(format_args!("{name}"), |table| {
            table.put("weight", &[width])
        });
    }
}

/// `value` to the nearest multiple of `step`, at least one.
pub fn multiple(step: usize, value: f64) -> usize {
    ((value / step as f64).round() as usize).max(1) * step
}
