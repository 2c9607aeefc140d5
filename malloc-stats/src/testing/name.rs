//! Which test is this?

use std::any::type_name;

/// The name of the running test, by which the binary can be asked for it.
pub(super) fn of_test<F>(_closure: &F) -> Result<String, String> {
    let thread = std::thread::current();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // libtest names the thread of a test after it, and with one thread runs tests on the main one.
    match thread.name() {
        Some(name) if name != "main" => Some(name.to_owned()),
        _ => asked_for(&arguments).or_else(|| of_function(type_name::<F>())),
    }
    .ok_or_else(|| {
        "which test is this? Its thread is not named after it: say \
         Fragmentation::measure().named(\"module::test\").over(…)"
            .to_owned()
    })
}

/// The one test that the arguments of a test binary ask for: `--exact` with one name.
fn asked_for(arguments: &[String]) -> Option<String> {
    if !arguments.iter().any(|argument| argument == "--exact") {
        return None;
    }
    let mut names = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // Those of libtest whose value is an argument of its own.
            "--test-threads" | "--skip" | "--format" | "--color" | "--logfile" | "-Z"
            | "--shuffle-seed" => {
                arguments.next();
            }
            option if option.starts_with('-') => {}
            name => names.push(name),
        }
    }
    match names[..] {
        [name] => Some(name.to_owned()),
        _ => None,
    }
}

/// The function where a closure stands, without its crate: `crate::module::test::{{closure}}`.
fn of_function(closure: &str) -> Option<String> {
    let mut function = closure.strip_suffix("::{{closure}}")?;
    while let Some(outer) = function.strip_suffix("::{{closure}}") {
        function = outer;
    }
    let (_crate, path) = function.split_once("::")?;
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(line: &str) -> Option<String> {
        let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        asked_for(&arguments)
    }

    #[test]
    fn the_one_exact_name_is_the_test() {
        for line in [
            "--exact a::b --nocapture",
            "a::b --exact --test-threads 1",
            "--skip x --exact --test-threads=1 a::b --format terse",
        ] {
            assert_eq!(asked(line).as_deref(), Some("a::b"), "{line}");
        }
        for line in ["", "a::b", "--exact a b", "--exact", "--test-threads 1"] {
            assert_eq!(asked(line), None, "{line}");
        }
    }

    #[test]
    fn a_closure_lies_in_its_test() {
        fn of<F>(_: F) -> Option<String> {
            of_function(type_name::<F>())
        }
        let nested = || of(|| ());
        let here = "testing::name::tests::a_closure_lies_in_its_test";
        assert_eq!(nested().as_deref(), Some(here));
        assert_eq!(of(nested).as_deref(), Some(here));
        assert_eq!(of(a_closure_lies_in_its_test), None);
    }
}
