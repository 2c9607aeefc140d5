//! A sentence as BERT's uncased models read it: words without case and marks, cut into pieces that
//! their vocabulary has.
//!
//! As the original for Latin, Greek and Cyrillic letters and for Chinese characters. Letters of
//! other scripts keep their marks here, where the original takes them off.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;

/// A longer word is unknown without a look.
const LONGEST_WORD: usize = 100;

/// The pieces that a model knows.
pub struct Vocabulary {
    /// Pieces that begin a word.
    beginnings: HashMap<String, u32>,
    /// Pieces that go on with one, which the file marks with `##`.
    rests: HashMap<String, u32>,
    begin: u32,
    end: u32,
    unknown: u32,
}

impl Vocabulary {
    /// Reads `vocab.txt`: a piece a line, numbered from zero.
    ///
    /// # Errors
    /// Where the file cannot be read, or lacks the marks of BERT.
    pub fn read(path: &Path) -> Result<Vocabulary, Box<dyn Error>> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let (mut beginnings, mut rests) = (HashMap::new(), HashMap::new());
        for (piece, id) in text.lines().zip(0..) {
            match piece.strip_prefix("##") {
                Some(rest) => rests.insert(rest.to_owned(), id),
                None => beginnings.insert(piece.to_owned(), id),
            };
        }
        let mark = |name: &str| {
            let id = beginnings.get(name).copied();
            id.ok_or_else(|| format!("{}: no {name}, so not BERT's", path.display()))
        };
        Ok(Vocabulary {
            begin: mark("[CLS]")?,
            end: mark("[SEP]")?,
            unknown: mark("[UNK]")?,
            beginnings,
            rests,
        })
    }

    /// The tokens of a text between a begin and an end, so many at most in all.
    pub fn tokens(&self, text: &str, longest: usize) -> Vec<u32> {
        let mut tokens = vec![self.begin];
        for word in words(text) {
            self.cut(&word, &mut tokens);
        }
        tokens.truncate(longest.saturating_sub(1));
        tokens.push(self.end);
        tokens
    }

    /// Takes the longest piece that is known, again and again; what cannot be cut so is unknown as
    /// a whole.
    fn cut(&self, word: &str, tokens: &mut Vec<u32>) {
        let before = tokens.len();
        let mut rest = word;
        let mut known = word.chars().count() <= LONGEST_WORD;
        while known && !rest.is_empty() {
            let begins = rest.len() == word.len();
            let pieces = if begins {
                &self.beginnings
            } else {
                &self.rests
            };
            let ends = rest.char_indices().map(|(at, char)| at + char.len_utf8());
            let longest = ends
                .rev()
                .find_map(|end| Some((*pieces.get(&rest[..end])?, end)));
            match longest {
                Some((id, end)) => {
                    tokens.push(id);
                    rest = &rest[end..];
                }
                None => known = false,
            }
        }
        if !known {
            tokens.truncate(before);
            tokens.push(self.unknown);
        }
    }
}

/// The words of a text, and its punctuation marks and Chinese characters, each for itself.
pub fn words(text: &str) -> Vec<String> {
    let mut spaced = String::with_capacity(text.len());
    for char in text.chars().flat_map(char::to_lowercase).filter_map(bare) {
        if is_punctuation(char) || is_ideograph(char) {
            spaced.extend([' ', char, ' ']);
        } else {
            spaced.push(char);
        }
    }
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Each word is a letter, and the same letter with marks.
const MARKED: &str = "\
    ;; aàáâãäåāăąǎǟǡǻȁȃȧḁạảấầẩẫậắằẳẵặ bḃḅḇ cçćĉċčḉ dďḋḍḏḑḓ eèéêëēĕėęěȅȇȩḕḗḙḛḝẹẻẽếềểễệ fḟ \
    gĝğġģǧǵḡ hĥȟḣḥḧḩḫẖ iìíîïĩīĭįǐȉȋḭḯỉị jĵǰ kķǩḱḳḵ lĺļľḷḹḻḽ mḿṁṃ nñńņňǹṅṇṉṋ \
    oòóôõöōŏőơǒǫǭȍȏȫȭȯȱṍṏṑṓọỏốồổỗộớờởỡợ pṕṗ rŕŗřȑȓṙṛṝṟ sśŝşšșṡṣṥṧṩ tţťțṫṭṯṱẗ \
    uùúûüũūŭůűųưǔǖǘǚǜȕȗṳṵṷṹṻụủứừửữự vṽṿ wŵẁẃẅẇẉẘ xẋẍ yýÿŷȳẏẙỳỵỷỹ zźżžẑẓẕ ¨΅ ·· æǣǽ øǿ ſẛ ʒǯ ʹʹ \
    αά εέ ηή ιΐίϊ οό υΰϋύ ωώ ϒϓϔ аӑӓ гѓ еѐёӗ жӂӝ зӟ ийѝӣӥ кќ оӧ уўӯӱӳ чӵ ыӹ эӭ ії ѵѷ әӛ өӫ";

/// A character without its marks; `None` for what is nothing but a mark, or has no shape.
fn bare(char: char) -> Option<char> {
    match char {
        '\t' | '\n' | '\r' => Some(char),
        '\u{300}'..='\u{36f}' | '\u{483}'..='\u{487}' => None,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' => None,
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}' => None,
        _ if char.is_control() => None,
        _ if char.is_ascii() => Some(char),
        _ => {
            let letter = MARKED.split(' ').find(|letters| letters.contains(char));
            Some(
                letter
                    .and_then(|letters| letters.chars().next())
                    .unwrap_or(char),
            )
        }
    }
}

/// Symbols of ASCII, and what Unicode calls punctuation.
fn is_punctuation(char: char) -> bool {
    match char {
        '¡' | '§' | '«' | '¶' | '·' | '»' | '¿' => true,
        // Mathematical operators among them.
        '⁄' | '⁒' => false,
        '\u{2010}'..='\u{2027}' | '\u{2030}'..='\u{205e}' => true,
        '\u{3001}'..='\u{3003}' | '\u{3008}'..='\u{3011}' | '\u{3014}'..='\u{301f}' => true,
        '＄' | '＋' | '＜' | '＝' | '＞' | '＾' | '｀' | '｜' | '～' => false,
        '！'..='／' | '：'..='＠' | '［'..='｀' | '｛'..='･' => true,
        _ => char.is_ascii_punctuation(),
    }
}

/// Chinese characters, which Japanese has too: the blocks that BERT names.
fn is_ideograph(char: char) -> bool {
    matches!(char,
        '\u{4e00}'..='\u{9fff}' | '\u{3400}'..='\u{4dbf}' | '\u{20000}'..='\u{2a6df}'
        | '\u{2a700}'..='\u{2b73f}' | '\u{2b740}'..='\u{2b81f}' | '\u{2b820}'..='\u{2ceaf}'
        | '\u{f900}'..='\u{faff}' | '\u{2f800}'..='\u{2fa1f}')
}
