//! Pickles, instruction by instruction, in the order and with the memo of Python's pickler.

/// A tensor as a pickle describes it.
#[derive(Debug, Clone)]
pub struct Saved {
    pub name: String,
    /// The name of its storage's type in `torch`.
    pub of: &'static str,
    pub key: String,
    /// Elements of the storage.
    pub count: u64,
    pub first: u64,
    pub shape: Vec<u64>,
    pub stride: Vec<u64>,
}

impl Saved {
    /// A tensor that fills its storage.
    pub fn new(name: &str, of: &'static str, key: &str, shape: &[u64]) -> Saved {
        let behind = |at: usize| shape[at + 1..].iter().map(|&size| size.max(1)).product();
        Saved {
            name: name.to_owned(),
            of,
            key: key.to_owned(),
            count: shape.iter().product(),
            first: 0,
            shape: shape.to_vec(),
            stride: (0..shape.len()).map(behind).collect(),
        }
    }
}

pub fn bytes_of(storage: &str) -> u64 {
    match storage {
        "DoubleStorage" | "LongStorage" | "ComplexFloatStorage" => 8,
        "FloatStorage" | "IntStorage" => 4,
        "HalfStorage" | "BFloat16Storage" | "ShortStorage" => 2,
        _ => 1,
    }
}

/// Writes a pickle of protocol 2.
pub struct Pickler {
    pub bytes: Vec<u8>,
    memo: Vec<String>,
}

impl Default for Pickler {
    fn default() -> Pickler {
        Pickler {
            bytes: b"\x80\x02".to_vec(),
            memo: Vec::new(),
        }
    }
}

impl Pickler {
    pub fn op(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.bytes.extend_from_slice(bytes.as_ref());
        self
    }

    pub fn end(mut self) -> Vec<u8> {
        self.op(b".");
        self.bytes
    }

    /// Puts what is on top into the memo, under a name of ours if it is to be found again.
    pub fn put(&mut self, name: &str) -> &mut Self {
        let number = self.memo.len();
        self.memo.push(name.to_owned());
        match u8::try_from(number) {
            Ok(short) => self.op([b'q', short]),
            Err(_) => self.op(b"r").op((number as u32).to_le_bytes()),
        }
    }

    /// How many are in the memo, fewer than 256.
    pub fn puts(&self) -> u8 {
        u8::try_from(self.memo.len()).unwrap()
    }

    fn again(&mut self, name: &str) -> bool {
        let Some(number) = self.memo.iter().position(|known| known == name) else {
            return false;
        };
        match u8::try_from(number) {
            Ok(short) => self.op([b'h', short]),
            Err(_) => self.op(b"j").op((number as u32).to_le_bytes()),
        };
        true
    }

    /// A text, not looked for in the memo.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.op(b"X")
            .op((text.len() as u32).to_le_bytes())
            .op(text)
            .put("")
    }

    fn known_text(&mut self, text: &str) {
        if !self.again(text) {
            self.op(b"X")
                .op((text.len() as u32).to_le_bytes())
                .op(text)
                .put(text);
        }
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Self {
        let whole = format!("{module}.{name}");
        if !self.again(&whole) {
            self.op(format!("c{module}\n{name}\n")).put(&whole);
        }
        self
    }

    pub fn int(&mut self, number: u64) -> &mut Self {
        match number {
            0..=0xff => self.op([b'K', number as u8]),
            0x100..=0xffff => self.op(b"M").op((number as u16).to_le_bytes()),
            0x1_0000..=0x7fff_ffff => self.op(b"J").op((number as u32).to_le_bytes()),
            0x8000_0000..0x8000_0000_0000_0000 => self.op([0x8a, 8]).op(number.to_le_bytes()),
            _ => self.op([0x8a, 9]).op(number.to_le_bytes()).op([0]),
        }
    }

    fn ints(&mut self, numbers: &[u64]) {
        let short = numbers.len() <= 3;
        if !short {
            self.op(b"(");
        }
        for &number in numbers {
            self.int(number);
        }
        match numbers.len() {
            // An empty tuple is not put into the memo.
            0 => self.op(b")"),
            1..=3 => self.op([0x84 + numbers.len() as u8]).put(""),
            _ => self.op(b"t").put(""),
        };
    }

    pub fn ordered_dict(&mut self) -> &mut Self {
        self.global("collections", "OrderedDict").op(b")R").put("")
    }

    /// A storage, by its persistent id.
    pub fn storage(&mut self, tensor: &Saved) -> &mut Self {
        self.op(b"(");
        self.known_text("storage");
        match tensor.of {
            "UntypedStorage" => self.global("torch.storage", tensor.of),
            _ => self.global("torch", tensor.of),
        };
        self.text(&tensor.key);
        self.known_text("cpu");
        self.int(tensor.count);
        self.op(b"t").put("").op(b"Q")
    }

    /// The arguments that every tensor is made of, behind the mark before them.
    pub fn arguments(&mut self, tensor: &Saved) -> &mut Self {
        self.storage(tensor);
        self.int(tensor.first);
        self.ints(&tensor.shape);
        self.ints(&tensor.stride);
        self.op([0x89]).ordered_dict()
    }

    pub fn tensor(&mut self, tensor: &Saved) -> &mut Self {
        self.global("torch._utils", "_rebuild_tensor_v2").op(b"(");
        self.arguments(tensor).op(b"t").put("").op(b"R").put("")
    }

    pub fn state_dict(&mut self, tensors: &[Saved]) -> &mut Self {
        self.ordered_dict();
        self.items(tensors)
    }

    /// The tensors as entries of the table on top.
    pub fn items(&mut self, tensors: &[Saved]) -> &mut Self {
        for batch in tensors.chunks(1000) {
            let alone = batch.len() == 1;
            if !alone {
                self.op(b"(");
            }
            for tensor in batch {
                self.text(&tensor.name).tensor(tensor);
            }
            self.op(if alone { b"s" } else { b"u" });
        }
        self
    }
}
