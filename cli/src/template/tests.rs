//! Templates against what Go's `text/template` prints for the same, and against what it refuses.

use serde_json::{Value, json};

use super::Template;

fn sample() -> Value {
    json!({
        "ID": "abc", "N": 3, "Zero": 0, "On": true, "Nothing": null, "Name": "Web Server", "Float": 1.5,
        "List": ["a", "b", "c"], "Empty": [], "Map": {"b": "2", "a": "1"}, "Labels": {"x.y/z": "v"},
        "State": {"Status": "running", "Pid": 7}, "Items": [{"K": "p"}, {"K": "q"}],
    })
}

fn check(template: &str, expected: &str) {
    let parsed = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error}"));
    assert_eq!(parsed.render(&sample()).as_deref(), Ok(expected), "{template}");
}

fn refuse(template: &str, place: (usize, usize), words: &str) {
    let error = match Template::parse(template) {
        Err(error) => error,
        Ok(parsed) => parsed.render(&sample()).expect_err(template),
    };
    let text = error.to_string();
    assert!(text.contains(words), "{template}: {text}");
    assert!(
        text.contains(&format!("line {} column {}", place.0, place.1)),
        "{template}: {text}"
    );
}

#[test]
fn values_print_as_go_prints_them() {
    check("plain", "plain");
    check("{{.ID}}-{{.N}}-{{.On}}-{{.Float}}", "abc-3-true-1.5");
    check("{{.State.Status}}", "running");
    check("{{.List}}", "[a b c]");
    check("{{.Map}}", "map[a:1 b:2]");
    check("{{.Nothing}}", "<no value>");
    check(
        "{{json .Map}} {{json .ID}} {{json .Nothing}}",
        r#"{"b":"2","a":"1"} "abc" null"#,
    );
    check("{{.Map.a}} {{$.ID}} {{(index .Items 1).K}}", "1 abc q");
    check(
        "{{\"q\\\"\\n\"}}{{`raw\\n`}} {{1}} {{-2.5}} {{true}}",
        "q\"\nraw\\n 1 -2.5 true",
    );
    check(
        "a {{- .ID -}} b {{/* nothing */}}c{{- /* trimmed */ -}} d",
        "aabcb cd",
    );
}

#[test]
fn conditions_follow_go_s_truth() {
    check(
        "{{if .On}}y{{else}}n{{end}}{{if .Zero}}y{{else}}n{{end}}{{if .Empty}}y{{else}}n{{end}}",
        "ynn",
    );
    check("{{if .Zero}}a{{else if .N}}b{{else}}c{{end}}", "b");
    check(
        "{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}",
        "none",
    );
    check(
        "{{with .State}}{{.Pid}}{{end}}{{with .Missing}}x{{else}}-{{end}}",
        "7-",
    );
    check(
        "{{if and .On (eq .N 3)}}y{{end}}{{if or .Zero .Empty}}n{{end}}{{if not .Missing}}!{{end}}",
        "y!",
    );
    check("{{if and .Missing .Missing.Deep}}x{{else}}ok{{end}}", "ok");
    check(
        "{{eq .ID \"x\" \"abc\"}} {{ne 1 2}} {{lt 1 2}} {{ge \"b\" \"a\"}}",
        "true true true true",
    );
}

#[test]
fn lists_and_maps_are_walked() {
    check("{{range .List}}<{{.}}>{{end}}", "<a><b><c>");
    check(
        "{{range $i, $v := .List}}{{if $i}}, {{end}}{{$i}}={{$v}}{{end}}",
        "0=a, 1=b, 2=c",
    );
    check("{{range $k, $v := .Map}}{{$k}}{{$v}};{{end}}", "a1;b2;");
    check("{{range .Empty}}x{{else}}empty{{end}}", "empty");
    check(
        "{{range .List}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
        "ac",
    );
    check(
        "{{range .List}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
        "a",
    );
    check(
        "{{$n := .N}}{{range .Items}}{{.K}}{{$n}}{{$.ID}} {{end}}",
        "p3abc q3abc ",
    );
    check(
        "{{$last := \"\"}}{{range .List}}{{$last = .}}{{end}}{{$last}}",
        "c",
    );
}

#[test]
fn functions_do_what_docker_s_do() {
    check("{{len .List}} {{len .ID}} {{.List | len}}", "3 3 3");
    check(
        "{{index .Labels \"x.y/z\"}}{{index .Labels \"none\"}}",
        "v<no value>",
    );
    check(
        "{{index .List 1}} {{slice .ID 1 3}} {{slice .List 1}}",
        "b bc [b c]",
    );
    check(
        "{{upper .ID}} {{lower .Name}} {{title \"a bc\"}}",
        "ABC web server A Bc",
    );
    check(
        "{{join .List \"+\"}} {{.List | join \",\"}} {{split \"a,b\" \",\"}}",
        "a+b+c a,b,c [a b]",
    );
    check("{{println .ID .N}}{{print .ID .N}}", "abc 3\nabc3");
    check(
        "{{printf \"%-5s|%3d|%q|%v%%\" .ID .N .ID .On}}",
        "abc  |  3|\"abc\"|true%",
    );
    check("{{truncate .Name 3}}|{{pad .ID 1 2}}|", "Web| abc  |");
    check("{{.Name | upper | printf \"%s!\"}}", "WEB SERVER!");
}

#[test]
fn mistakes_are_refused_where_they_are() {
    refuse("a\nb {{.ID", (2, 3), "{{ has no }}");
    refuse("{{.Ida}}", (1, 3), "there is no field \"Ida\": there are ID, N");
    refuse("{{.ID.X}}", (1, 3), "a string has no field");
    refuse("{{uppr .ID}}", (1, 3), "there is no function \"uppr\"");
    refuse("{{if .On}}x", (1, 3), "{{if}} has no {{end}}");
    refuse("{{end}}", (1, 1), "{{end}} belongs to no");
    refuse("{{else}}", (1, 1), "{{else}} belongs to no");
    refuse("{{$x}}", (1, 3), "there is no variable $x");
    refuse("{{}}", (1, 3), "expected a value, found }}");
    refuse("{{.ID .N}}", (1, 7), "expected a function");
    refuse("{{(.ID}}", (1, 7), "expected ), found }}");
    refuse("{{template \"x\"}}", (1, 3), "not supported");
    refuse("{{\"x}}", (1, 3), "no closing quote");
    refuse("{{.ID | .N}}", (1, 9), "only a function");
    refuse("{{range .N}}{{end}}", (1, 9), "cannot range over a number");
    refuse("{{len .N}}", (1, 3), "has no length");
    refuse("{{index .List 9}}", (1, 3), "beyond a list of 3");
    refuse("{{slice .ID 2 1}}", (1, 3), "beyond a length");
    refuse("{{lt .ID .N}}", (1, 3), "cannot compare");
    refuse("{{upper}}", (1, 3), "takes 1 argument(s), got 0");
    refuse("{{printf \"%x\" 1}}", (1, 3), "not supported");
    refuse("{{# .ID}}", (1, 3), "'#' has no meaning");
    refuse("{{/* x}}", (1, 1), "comment has no end");
    refuse("{{pad .ID 100000 0}}", (1, 3), "at most");
}

#[test]
fn hostile_templates_end() {
    let deep = format!("{}{}", "{{if .On}}".repeat(100), "{{end}}".repeat(100));
    assert!(
        Template::parse(&deep)
            .expect_err("too deep")
            .to_string()
            .contains("nesting")
    );
    let parentheses = format!("{{{{{}1{}}}}}", "(".repeat(5000), ")".repeat(5000));
    assert!(Template::parse(&parentheses).is_err());
    assert!(Template::parse(&"x".repeat(100_000)).is_err());
    let list: Vec<u32> = (0..1000).collect();
    let squares = "{{range $a := .L}}{{range $b := $.L}}{{range $c := $.L}}{{end}}{{end}}{{end}}";
    let parsed = Template::parse(squares).expect("it is a template");
    assert!(
        parsed
            .render(&json!({ "L": list }))
            .expect_err("too long")
            .to_string()
            .contains("steps")
    );
}

#[test]
fn headers_take_the_fields_place() {
    let parsed =
        Template::parse("{{.ID}}\t{{upper .Names}}\t{{json .State.Status}}").expect("it is a template");
    assert_eq!(parsed.header(str::to_uppercase), "ID\tNAMES\tSTATUS");
}
