//! The stack machine of pickles, as far as tables of tensors need it.

use super::globals::Global;
use super::values::{LONGEST_TUPLE, Raw, Storage, Table, Text, Tuple, Value, Values};

/// The most values that are kept: in the memo, in tuples, in tables, and tensors; each takes up to 64
/// bytes. A tensor makes about 30.
pub(super) const MAX_VALUES: usize = 1 << 22;

/// The most tensors in a table.
const MAX_TENSORS: usize = 1 << 18;

/// The most values on the stack. Python's pickler puts 1000 items of a list or table there at once.
const MAX_STACK: usize = 1 << 20;

/// Why an instruction cannot be followed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Odd {
    /// What is on the stack does not fit it.
    Unfit(&'static str),
    /// There would be more of these than that.
    TooMany(&'static str, usize),
}

const EMPTY: Odd = Odd::Unfit("an instruction for which too little is on the stack");

/// The state between two instructions.
#[derive(Default)]
pub(super) struct Machine {
    stack: Vec<Value>,
    /// Heights of the stack. What lies below the last is out of reach until that is gone.
    marks: Vec<usize>,
    memo: Vec<Value>,
    elements: Vec<Value>,
    tables: Vec<Table>,
    storages: Vec<Storage>,
    tensors: Vec<Raw>,
    /// How many values are kept in these.
    kept: usize,
}

impl Machine {
    /// What is left on the stack at the end.
    pub(super) fn finish(&mut self) -> Result<Value, Odd> {
        let root = self.pop()?;
        match (&self.stack[..], &self.marks[..]) {
            ([], []) => Ok(root),
            _ => Err(Odd::Unfit("an end with more than one value left")),
        }
    }

    pub(super) fn into_values(self, pickle: &[u8], root: Value) -> Values<'_> {
        Values {
            pickle,
            root,
            elements: self.elements,
            tables: self.tables,
            storages: self.storages,
            tensors: self.tensors,
        }
    }

    fn keep(&mut self, more: usize) -> Result<(), Odd> {
        self.kept += more;
        if self.kept > MAX_VALUES {
            return Err(Odd::TooMany("values", MAX_VALUES));
        }
        Ok(())
    }

    pub(super) fn push(&mut self, value: Value) -> Result<(), Odd> {
        if self.stack.len() >= MAX_STACK {
            return Err(Odd::TooMany("values on its stack", MAX_STACK));
        }
        self.stack.push(value);
        Ok(())
    }

    /// How many values are within reach.
    fn reach(&self) -> usize {
        self.stack.len() - self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Result<Value, Odd> {
        let value = (self.reach() > 0).then(|| self.stack.pop()).flatten();
        value.ok_or(EMPTY)
    }

    fn top(&self) -> Result<Value, Odd> {
        let value = (self.reach() > 0).then(|| self.stack.last()).flatten();
        value.copied().ok_or(EMPTY)
    }

    pub(super) fn mark(&mut self) -> Result<(), Odd> {
        if self.marks.len() >= MAX_STACK {
            return Err(Odd::TooMany("marks on its stack", MAX_STACK));
        }
        self.marks.push(self.stack.len());
        Ok(())
    }

    /// Removes the last mark and gives where it was.
    fn unmark(&mut self) -> Result<usize, Odd> {
        self.marks.pop().ok_or(Odd::Unfit("no mark"))
    }

    pub(super) fn pop_to_mark(&mut self) -> Result<(), Odd> {
        let height = self.unmark()?;
        self.stack.truncate(height);
        Ok(())
    }

    /// Removes the last value or, where that is on top, the last mark, as Python does.
    pub(super) fn discard(&mut self) -> Result<(), Odd> {
        match self.marks.last() {
            Some(&height) if height == self.stack.len() => self.unmark().map(drop),
            _ => self.pop().map(drop),
        }
    }

    pub(super) fn get(&mut self, number: u64) -> Result<(), Odd> {
        let known = usize::try_from(number)
            .ok()
            .and_then(|at| self.memo.get(at));
        let value = known.copied();
        self.push(value.ok_or(Odd::Unfit("a memo that was never made"))?)
    }

    /// Numbers are given in turn by every pickler, so a gap is not filled up.
    pub(super) fn put(&mut self, number: u64) -> Result<(), Odd> {
        let value = self.top()?;
        match usize::try_from(number) {
            Ok(at) if at == self.memo.len() => {
                self.keep(1)?;
                self.memo.push(value);
            }
            Ok(at) if at < self.memo.len() => self.memo[at] = value,
            _ => return Err(Odd::Unfit("a memo out of turn")),
        }
        Ok(())
    }

    pub(super) fn memoize(&mut self) -> Result<(), Odd> {
        self.put(self.memo.len() as u64)
    }

    /// Makes a tuple of the last so many values.
    pub(super) fn tuple(&mut self, length: usize) -> Result<(), Odd> {
        if self.reach() < length {
            return Err(EMPTY);
        }
        let height = self.stack.len() - length;
        if length > LONGEST_TUPLE {
            self.stack.truncate(height);
            return self.push(Value::Other);
        }
        self.keep(length)?;
        let at = self.elements.len() as u32;
        self.elements.extend(self.stack.drain(height..));
        let len = length as u32;
        self.push(Value::Tuple(Tuple { at, len }))
    }

    pub(super) fn tuple_to_mark(&mut self) -> Result<(), Odd> {
        let height = self.unmark()?;
        self.tuple(self.stack.len() - height)
    }

    pub(super) fn append(&mut self) -> Result<(), Odd> {
        self.pop()?;
        self.has_items()
    }

    pub(super) fn append_many(&mut self) -> Result<(), Odd> {
        self.pop_to_mark()?;
        self.has_items()
    }

    fn has_items(&self) -> Result<(), Odd> {
        match self.top()? {
            Value::Other => Ok(()),
            _ => Err(Odd::Unfit("an item for what is no list")),
        }
    }

    pub(super) fn table(&mut self) -> Result<(), Odd> {
        self.keep(1)?;
        self.tables.push(Table::default());
        self.push(Value::Table(self.tables.len() as u32 - 1))
    }

    pub(super) fn set_one(&mut self) -> Result<(), Odd> {
        if self.reach() < 2 {
            return Err(EMPTY);
        }
        self.set_from(self.stack.len() - 2)
    }

    pub(super) fn set_many(&mut self) -> Result<(), Odd> {
        let height = self.unmark()?;
        self.set_from(height)
    }

    /// Puts the values from `height` on, names and values in turn, into the table below them.
    fn set_from(&mut self, height: usize) -> Result<(), Odd> {
        let items = self.stack.split_off(height);
        self.keep(items.len() / 2)?;
        let Value::Table(at) = self.top()? else {
            return Err(Odd::Unfit("an entry for what is no table"));
        };
        let table = &mut self.tables[at as usize];
        let (items, rest) = items.as_chunks::<2>();
        for [name, value] in items {
            match name {
                Value::Text(name) => {
                    table.entries.push((*name, *value));
                    table.tensors += usize::from(matches!(value, Value::Tensor(_)));
                }
                _ => table.unnamed += 1,
            }
        }
        if table.tensors > MAX_TENSORS {
            return Err(Odd::TooMany("tensors", MAX_TENSORS));
        }
        match rest {
            [] => Ok(()),
            _ => Err(Odd::Unfit("a name without its value")),
        }
    }

    pub(super) fn two_texts(&mut self) -> Result<[Text; 2], Odd> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => Ok([module, name]),
            _ => Err(Odd::Unfit("a name that is no text")),
        }
    }

    /// Attributes of a table, such as the versions of modules that a state dict has, are let go.
    pub(super) fn build(&mut self) -> Result<(), Odd> {
        self.pop()?;
        match self.top()? {
            Value::Table(_) => Ok(()),
            _ => Err(Odd::Unfit("attributes for what is no table")),
        }
    }

    /// A persistent id, which is `('storage', type, key, location, count)`.
    pub(super) fn storage(&mut self, pickle: &[u8]) -> Result<(), Odd> {
        let id = self.pop_tuple()?;
        let [
            Value::Text(kind),
            Value::Global(Global::Storage(of)),
            Value::Text(key),
            _,
            Value::Int(count),
        ] = *id.of(&self.elements)
        else {
            return Err(Odd::Unfit("a storage that is not named as one"));
        };
        let count = u64::try_from(count);
        match (kind.of(pickle), count) {
            (b"storage", Ok(count)) => {
                self.keep(1)?;
                self.storages.push(Storage { of, key, count });
                self.push(Value::Storage(self.storages.len() as u32 - 1))
            }
            _ => Err(Odd::Unfit("a storage that is not named as one")),
        }
    }

    fn pop_tuple(&mut self) -> Result<Tuple, Odd> {
        match self.pop()? {
            Value::Tuple(tuple) => Ok(tuple),
            _ => Err(Odd::Unfit("arguments that are no short tuple")),
        }
    }

    /// Makes what Python would make by calling one of the allowed.
    pub(super) fn reduce(&mut self) -> Result<(), Odd> {
        let arguments = self.pop_tuple()?;
        let Value::Global(called) = self.pop()? else {
            return Err(Odd::Unfit("a call of what cannot be called"));
        };
        let (made, dtype) = match (called, arguments.of(&self.elements)) {
            (Global::OrderedDict, []) => return self.table(),
            (Global::Size, [_]) => return self.push(Value::Other),
            (Global::Parameter, [tensor @ Value::Tensor(_), _, _]) => return self.push(*tensor),
            (Global::Tensor, [made @ .., _, _]) if made.len() == 4 => (made, None),
            (Global::TypedTensor, [made @ .., _, _, Value::Global(Global::Dtype(dtype))])
                if made.len() == 4 =>
            {
                (made, Some(*dtype))
            }
            // One argument more says that the values are to be conjugated or negated.
            _ => return Err(Odd::Unfit("a call with arguments that do not fit")),
        };
        let raw = raw(made, dtype).ok_or(Odd::Unfit("a tensor of odd arguments"))?;
        self.keep(1)?;
        self.tensors.push(raw);
        self.push(Value::Tensor(self.tensors.len() as u32 - 1))
    }
}

fn raw(arguments: &[Value], dtype: Option<u8>) -> Option<Raw> {
    let &[
        Value::Storage(storage),
        Value::Int(first),
        Value::Tuple(shape),
        Value::Tuple(stride),
    ] = arguments
    else {
        return None;
    };
    Some(Raw {
        storage,
        dtype,
        first: u64::try_from(first).ok()?,
        shape,
        stride,
    })
}
