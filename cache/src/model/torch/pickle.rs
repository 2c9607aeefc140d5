//! A pickle, read as data.
//!
//! A pickle is a program for a stack machine, and Python's runs it with all of Python in reach. The
//! machine here knows the instructions that `torch.save` writes, and of what they name only
//! [`allowed`]; it imports and calls nothing, so a pickle can at most claim wrong numbers, which the
//! caller checks. Instructions follow one another without jumps: a single pass sees them all.
//!
//! Not candle's machine (`candle_core::pickle`, 0.11.1), which is for files one trusts: it copies
//! values into and out of its memo whole, so that 60 bytes can make 2³⁰ of them; frees nested ones
//! by recursion; allocates up to 4 GiB for a text on the word of its length; shifts by more than 64
//! bits and takes from the middle of short tuples, which panics; and lets any import pass. Here a
//! value is 16 bytes that refer to others by number, and at most
//! [`MAX_VALUES`](super::machine::MAX_VALUES) are kept.

use super::directory::le;
use super::fault::TorchFault;
use super::globals::allowed;
use super::machine::{Machine, Odd};
use super::values::{LONGEST_TEXT, Text, Value, Values};

/// The longest pickle that is read, bytes: as for headers of safetensors files. A tensor takes
/// about 200 bytes of it.
pub(super) const MAX_PICKLE_BYTES: u64 = 100_000_000;

/// The latest protocol that is read, that of Python 3.8. `torch.save` writes 2 unless told.
pub(super) const PROTOCOL: u8 = 5;

/// Reads a pickle of up to [`MAX_PICKLE_BYTES`].
pub(super) fn read(pickle: &[u8]) -> Result<Values<'_>, TorchFault> {
    let mut reader = Reader {
        pickle,
        instruction: 0,
        next: 0,
    };
    let mut machine = Machine::default();
    loop {
        reader.instruction = reader.next;
        let opcode = reader.take(1)?[0];
        if opcode == b'.' {
            break;
        }
        reader.follow(opcode, &mut machine)?;
    }
    if reader.next < pickle.len() {
        return Err(reader.odd(Odd::Unfit("bytes after the end")));
    }
    let root = machine.finish().map_err(|odd| reader.odd(odd))?;
    Ok(machine.into_values(pickle, root))
}

struct Reader<'a> {
    pickle: &'a [u8],
    /// Where the instruction began that is followed.
    instruction: usize,
    /// What is to be read next.
    next: usize,
}

impl<'a> Reader<'a> {
    fn odd(&self, odd: Odd) -> TorchFault {
        let at = self.instruction;
        match odd {
            Odd::Unfit(what) => TorchFault::Malformed { what, at },
            Odd::TooMany(what, limit) => TorchFault::TooMany { what, limit, at },
        }
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], TorchFault> {
        let rest = &self.pickle[self.next..];
        let taken = rest.get(..bytes).ok_or(TorchFault::Cut {
            at: self.instruction,
            bytes: self.pickle.len(),
        })?;
        self.next += bytes;
        Ok(taken)
    }

    /// A number of so many bytes.
    fn number(&mut self, bytes: usize) -> Result<u64, TorchFault> {
        self.take(bytes).map(le)
    }

    /// What has its length in so many bytes before it.
    fn counted(&mut self, bytes: usize) -> Result<&'a [u8], TorchFault> {
        let length = self.number(bytes)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn text(&mut self, bytes: usize) -> Result<Value, TorchFault> {
        let text = self.counted(bytes)?;
        if str::from_utf8(text).is_err() {
            return Err(self.odd(Odd::Unfit("a text that is not UTF-8")));
        }
        Ok(match text.len() {
            0..=LONGEST_TEXT => Value::Text(Text::ending(self.next, text.len())),
            _ => Value::Other,
        })
    }

    /// A line of text, without its end.
    fn line(&mut self) -> Result<&'a [u8], TorchFault> {
        let rest = &self.pickle[self.next..];
        let end = rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(end.map_or(usize::MAX, |end| end + 1))?;
        Ok(&line[..line.len() - 1])
    }

    fn global(&self, module: &[u8], name: &[u8]) -> Result<Value, TorchFault> {
        let known = match (str::from_utf8(module), str::from_utf8(name)) {
            (Ok(module), Ok(name)) => allowed(module, name),
            _ => None,
        };
        known.map(Value::Global).ok_or_else(|| {
            // Enough to be recognised by.
            let shown = |text: &[u8]| {
                let cut = &text[..text.len().min(LONGEST_SHOWN)];
                String::from_utf8_lossy(cut).into_owned()
            };
            TorchFault::Global {
                asked: format!("{}.{}", shown(module), shown(name)).into(),
                at: self.instruction,
            }
        })
    }

    /// Numbers and names are those of `pickletools.opcodes`, in its order.
    fn follow(&mut self, opcode: u8, machine: &mut Machine) -> Result<(), TorchFault> {
        let value = match opcode {
            // BININT, BININT1, BININT2, LONG1, LONG4
            b'J' => Value::Int(i64::from(self.number(4)? as u32 as i32)),
            b'K' => Value::Int(self.number(1)? as i64),
            b'M' => Value::Int(self.number(2)? as i64),
            0x8a => long(self.counted(1)?),
            0x8b => long(self.counted(4)?),
            // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
            b'C' => self.counted(1).map(|_| Value::Other)?,
            b'B' => self.counted(4).map(|_| Value::Other)?,
            0x8e | 0x96 => self.counted(8).map(|_| Value::Other)?,
            // NONE, NEWTRUE, NEWFALSE
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
            0x8c => self.text(1)?,
            b'X' => self.text(4)?,
            0x8d => self.text(8)?,
            // BINFLOAT, the only number with its greatest byte first
            b'G' => Value::Float(f64::from_bits(self.number(8)?.swap_bytes())),
            // EMPTY_LIST, EMPTY_SET
            b']' | 0x8f => Value::Other,
            // GLOBAL
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?
            }
            // STACK_GLOBAL
            0x93 => {
                let names = machine.two_texts().map_err(|odd| self.odd(odd))?;
                let [module, name] = names.map(|text| text.of(self.pickle));
                self.global(module, name)?
            }
            // INST: it makes what it names, and is here for that to be named.
            b'i' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
                return Err(self.unknown(opcode));
            }
            // PROTO
            0x80 => {
                let protocol = self.take(1)?[0];
                if protocol > PROTOCOL {
                    return Err(TorchFault::Protocol { protocol });
                }
                return Ok(());
            }
            // FRAME
            0x95 => {
                let frame = self.number(8)?;
                let rest = (self.pickle.len() - self.next) as u64;
                if frame > rest {
                    return Err(self.odd(Odd::Unfit("a frame that reaches beyond the end")));
                }
                return Ok(());
            }
            _ => {
                let done = self.arrange(opcode, machine)?;
                return done.map_err(|odd| self.odd(odd));
            }
        };
        machine.push(value).map_err(|odd| self.odd(odd))
    }

    /// The instructions that make something of what is on the stack.
    fn arrange(
        &mut self,
        opcode: u8,
        machine: &mut Machine,
    ) -> Result<Result<(), Odd>, TorchFault> {
        Ok(match opcode {
            // APPEND, APPENDS, ADDITEMS, FROZENSET
            b'a' => machine.append(),
            b'e' | 0x90 => machine.append_many(),
            0x91 => machine
                .pop_to_mark()
                .and_then(|()| machine.push(Value::Other)),
            // EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3
            b')' => machine.tuple(0),
            b't' => machine.tuple_to_mark(),
            0x85..=0x87 => machine.tuple(usize::from(opcode - 0x84)),
            // EMPTY_DICT, SETITEM, SETITEMS
            b'}' => machine.table(),
            b's' => machine.set_one(),
            b'u' => machine.set_many(),
            // POP, MARK, POP_MARK
            b'0' => machine.discard(),
            b'(' => machine.mark(),
            b'1' => machine.pop_to_mark(),
            // BINGET, LONG_BINGET, BINPUT, LONG_BINPUT, MEMOIZE
            b'h' => machine.get(self.number(1)?),
            b'j' => machine.get(self.number(4)?),
            b'q' => machine.put(self.number(1)?),
            b'r' => machine.put(self.number(4)?),
            0x94 => machine.memoize(),
            // REDUCE, BUILD, BINPERSID
            b'R' => machine.reduce(),
            b'b' => machine.build(),
            b'Q' => machine.storage(self.pickle),
            _ => return Err(self.unknown(opcode)),
        })
    }

    fn unknown(&self, opcode: u8) -> TorchFault {
        let at = self.instruction;
        TorchFault::Opcode { opcode, at }
    }
}

/// How much of a name is shown, bytes. More is cut anyway where it is printed.
const LONGEST_SHOWN: usize = 1024;

/// A number in two's complement, of any length.
fn long(bytes: &[u8]) -> Value {
    match bytes.len() {
        0 => Value::Int(0),
        length @ 1..=8 => {
            let unused = 64 - 8 * length as u32;
            Value::Int((le(bytes) << unused).cast_signed() >> unused)
        }
        _ => Value::Other,
    }
}
