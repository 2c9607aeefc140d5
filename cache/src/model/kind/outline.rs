//! A model's tensors by the forms of their names: `model.layers.#.mlp.up_proj.weight`.
//!
//! What a model is shows in which forms there are, whatever the number of its layers. Real models
//! have some hundred forms at most.

use std::collections::HashMap;

use super::super::tensor::TensorInfo;

/// More forms than this are not kept, so that a hostile file costs no more than a real one.
const MOST_FORMS: usize = 4096;

/// Names longer than this, bytes, have no form. In public models they have up to 130.
const LONGEST: usize = 256;

/// What tensors whose names differ only in numbers have in common.
#[derive(Debug, Clone)]
pub(super) struct Form {
    /// How many tensors.
    pub(super) count: usize,
    /// The shape of the first.
    pub(super) shape: Box<[usize]>,
    /// The least and the most of their first dimensions.
    pub(super) rows: (usize, usize),
    /// The most of their second dimensions; 0 where none has one.
    pub(super) columns: usize,
    /// The least and the greatest of the first numbers in their names.
    pub(super) first: (u32, u32),
    /// The greatest of the last numbers in their names.
    pub(super) last: u32,
}

impl Form {
    fn new(tensor: &TensorInfo, numbers: Numbers) -> Self {
        let rows = tensor.shape.first().copied().unwrap_or(0);
        Self {
            count: 0,
            shape: tensor.shape.clone(),
            rows: (rows, rows),
            columns: 0,
            first: (numbers.first, numbers.first),
            last: numbers.last,
        }
    }

    fn note(&mut self, tensor: &TensorInfo, numbers: Numbers) {
        self.count += 1;
        let dimension = |at: usize| tensor.shape.get(at).copied().unwrap_or(0);
        self.rows.0 = self.rows.0.min(dimension(0));
        self.rows.1 = self.rows.1.max(dimension(0));
        self.columns = self.columns.max(dimension(1));
        self.first.0 = self.first.0.min(numbers.first);
        self.first.1 = self.first.1.max(numbers.first);
        self.last = self.last.max(numbers.last);
    }
}

/// The forms of a model, each under its text.
#[derive(Debug)]
pub(super) struct Outline {
    forms: HashMap<String, Form>,
    /// How many tensors the model has.
    pub(super) tensors: usize,
}

impl Outline {
    /// Walks the tensors once.
    pub(super) fn of(tensors: &[TensorInfo]) -> Self {
        let mut forms: HashMap<String, Form> = HashMap::new();
        let mut text = String::new();
        for tensor in tensors.iter().filter(|tensor| tensor.name.len() <= LONGEST) {
            let numbers = write_form(&tensor.name, &mut text);
            if let Some(form) = forms.get_mut(&text) {
                form.note(tensor, numbers);
            } else if forms.len() < MOST_FORMS {
                let mut form = Form::new(tensor, numbers);
                form.note(tensor, numbers);
                forms.insert(text.clone(), form);
            }
        }
        Self {
            forms,
            tensors: tensors.len(),
        }
    }

    /// All forms.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Form)> {
        self.forms.iter().map(|(text, form)| (&**text, form))
    }

    /// What lies under `prefix`, with the prefix taken off.
    pub(super) fn under<'a>(&'a self, prefix: &'static str) -> View<'a> {
        let forms = self.iter();
        let under = forms.filter_map(|(text, form)| Some((text.strip_prefix(prefix)?, form)));
        View {
            prefix,
            forms: under.collect(),
        }
    }

    /// Whether any name begins with one of these.
    pub(super) fn begins(&self, beginnings: &[&str]) -> bool {
        self.iter().any(|(text, _)| {
            let mut beginnings = beginnings.iter();
            beginnings.any(|beginning| text.starts_with(beginning))
        })
    }
}

/// The part of a model whose names begin alike.
#[derive(Debug)]
pub(super) struct View<'a> {
    pub(super) prefix: &'static str,
    forms: HashMap<&'a str, &'a Form>,
}

impl<'a> View<'a> {
    pub(super) fn is_empty(&self) -> bool {
        self.forms.is_empty()
    }

    pub(super) fn get(&self, form: &str) -> Option<&'a Form> {
        self.forms.get(form).copied()
    }

    pub(super) fn has(&self, form: &str) -> bool {
        self.forms.contains_key(form)
    }

    pub(super) fn has_all(&self, forms: &[&str]) -> bool {
        forms.iter().all(|form| self.has(form))
    }

    /// A matrix, plain or packed by GPTQ or AWQ.
    pub(super) fn matrix(&self, module: &str) -> bool {
        self.has(&format!("{module}.weight")) || self.has(&format!("{module}.qweight"))
    }

    /// The most second dimensions of a form: what a matrix takes.
    pub(super) fn columns(&self, form: &str) -> Option<usize> {
        self.get(form).map(|form| form.columns)
    }

    /// The most first dimensions of a form: what a matrix gives, or the words of a vocabulary.
    pub(super) fn rows(&self, form: &str) -> Option<usize> {
        self.get(form).map(|form| form.rows.1)
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Numbers {
    first: u32,
    last: u32,
}

/// Writes the form of a name: each part between dots that is a number as `#`. In the names that
/// kohya-ss's scripts give to adapters, parts lie between underscores too.
fn write_form(name: &str, form: &mut String) -> Numbers {
    form.clear();
    let is_flat = name.starts_with("lora_") || name.starts_with("lycoris_");
    let ends_part = |c: char| c == '.' || (is_flat && c == '_');
    let mut numbers = Numbers::default();
    let mut is_first = true;
    let mut rest = name;
    loop {
        let end = rest.find(ends_part).unwrap_or(rest.len());
        let (part, tail) = rest.split_at(end);
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = part.parse().unwrap_or(u32::MAX);
            if is_first {
                numbers.first = number;
                is_first = false;
            }
            numbers.last = number;
            form.push('#');
        } else {
            form.push_str(part);
        }
        let mut after = tail.chars();
        let Some(separator) = after.next() else {
            return numbers;
        };
        form.push(separator);
        rest = after.as_str();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(name: &str) -> (String, u32, u32) {
        let mut text = String::new();
        let numbers = write_form(name, &mut text);
        (text, numbers.first, numbers.last)
    }

    #[test]
    fn numbers_between_dots_are_one_form_and_numbers_in_words_are_not() {
        let text = "down_blocks.#.attentions.#.transformer_blocks.#.attn2.to_k.weight";
        let name = "down_blocks.1.attentions.0.transformer_blocks.9.attn2.to_k.weight";
        assert_eq!(form(name), (text.to_owned(), 1, 9));
        assert_eq!(form("norm1.weight").0, "norm1.weight");
        assert_eq!(
            form("time_embedding.linear_1.bias").0,
            "time_embedding.linear_1.bias"
        );
        let flat = "lora_unet_mid_block_attentions_#_transformer_blocks_#_attn1_to_k.alpha";
        let name = "lora_unet_mid_block_attentions_0_transformer_blocks_3_attn1_to_k.alpha";
        assert_eq!(form(name), (flat.to_owned(), 0, 3));
    }

    #[test]
    fn odd_names_have_forms_too() {
        assert_eq!(form("").0, "");
        assert_eq!(form("..").0, "..");
        assert_eq!(form("ü.7.ß").0, "ü.#.ß");
        assert_eq!(
            form("99999999999.x"),
            ("#.x".to_owned(), u32::MAX, u32::MAX)
        );
        assert_eq!(form("٣.x").0, "٣.x");
    }
}
