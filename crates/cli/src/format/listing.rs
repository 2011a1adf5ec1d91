//! Listings: rows and a format become a table, lines of a template, or JSON lines.

use super::{Absent, Row, Template, Value};

/// The name of a column and what stands above it.
pub(crate) type Heading = (&'static str, &'static str);

/// Renders `rows` by `format`, which is `table TEMPLATE`, `json`, or a template.
pub(crate) fn render(format: &str, headings: &[Heading], rows: Vec<Row>) -> Result<String, String> {
    let (table, text) = match format.strip_prefix("table") {
        Some(text) => (true, text),
        None if format == "json" => (false, "{{json .}}"),
        None => (false, format),
    };
    let text = text.trim_matches(' ').replace("\\t", "\t").replace("\\n", "\n");
    let template =
        Template::parse(&text).map_err(|err| format!("template parsing error: {err}"))?;
    let failed = |err| format!("template parsing error: {err}");
    let mut out = String::new();
    if table {
        let headings =
            Value::map(headings.iter().map(|(name, heading)| (*name, Value::text(heading))));
        out.push_str(&template.run(&headings, Absent::Heading).map_err(failed)?);
        out.push('\n');
    }
    for row in rows {
        out.push_str(&template.run(&Value::Row(row.into()), Absent::NoValue).map_err(failed)?);
        out.push('\n');
    }
    Ok(if table { align(&out) } else { out })
}

/// Whether a format means something for a row, which stands for any other. Tables are texts like any other here.
pub(crate) fn try_out(format: &str, row: Row) -> Result<(), String> {
    let template =
        Template::parse(format).map_err(|err| format!("failed to parse template: {err}"))?;
    let tried = template.run(&Value::Row(row.into()), Absent::NoValue);
    tried.map(drop).map_err(|err| format!("failed to execute template: {err}"))
}

/// A table that is there before its template is known to be right: the first error, if any.
pub(crate) fn check(format: &str) -> Result<(), String> {
    let text = format.strip_prefix("table").unwrap_or(format);
    Template::parse(text.trim_matches(' '))
        .map(drop)
        .map_err(|err| format!("template parsing error: {err}"))
}

const LEAST: usize = 10;
const BETWEEN: usize = 3;

/// Lines up cells ended by tabs, as Go's tabwriter does: a column is a run of lines that all have the cell.
pub(crate) fn align(text: &str) -> String {
    align_with(text, LEAST, BETWEEN)
}

/// As [`align`], with the least width of a column and the blanks between two.
pub(crate) fn align_with(text: &str, least: usize, between: usize) -> String {
    let lines: Vec<Vec<&str>> =
        text.split_terminator('\n').map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = lines.iter().map(|cells| vec![0; cells.len()]).collect();
    measure(&lines, &mut widths, 0, (least, between));
    let mut out = String::with_capacity(text.len() * 2);
    for (cells, widths) in lines.iter().zip(&widths) {
        for (cell, width) in cells.iter().zip(widths) {
            out.push_str(cell);
            out.push_str(&" ".repeat(width.saturating_sub(cell.chars().count())));
        }
        out.push('\n');
    }
    out
}

fn measure(
    lines: &[Vec<&str>],
    widths: &mut [Vec<usize>],
    column: usize,
    (least, between): (usize, usize),
) {
    let has = |cells: &Vec<&str>| column + 1 < cells.len();
    let mut from = 0;
    while from < lines.len() {
        let Some(start) = lines[from..].iter().position(has).map(|at| from + at) else { return };
        let end = lines[start..]
            .iter()
            .position(|cells| !has(cells))
            .map_or(lines.len(), |at| start + at);
        let widest =
            lines[start..end].iter().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        for widths in &mut widths[start..end] {
            widths[column] = least.max(widest + between);
        }
        measure(&lines[start..end], &mut widths[start..end], column + 1, (least, between));
        from = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        ["one", "a-longer-name"]
            .into_iter()
            .map(|name| Row {
                type_name: "*formatter.Thing",
                columns: vec![("Name", Value::text(name)), ("ID", Value::text("<1>"))],
                labels: vec![("a".into(), "b".into())],
            })
            .collect()
    }

    const HEADINGS: [Heading; 2] = [("ID", "THING ID"), ("Name", "NAME")];

    fn check(format: &str, expected: &str) {
        assert_eq!(render(format, &HEADINGS, rows()).unwrap_or_else(|err| err), expected);
    }

    #[test]
    fn every_format() {
        check(
            "table {{.ID}}\\t{{.Name}}",
            "THING ID   NAME\n<1>        one\n<1>        a-longer-name\n",
        );
        check("{{.Name}}: {{.Label \"a\"}}", "one: b\na-longer-name: b\n");
        check("table {{.Label \"x.my-a\"}}", "my a\n\n\n");
        check(
            "json",
            "{\"ID\":\"\\u003c1\\u003e\",\"Name\":\"one\"}\n{\"ID\":\"\\u003c1\\u003e\",\"Name\":\"a-longer-name\"}\n",
        );
        check("{{.ID", "template parsing error: template: :1: unclosed action");
        check(
            "{{.Foo}}",
            "template parsing error: template: :1:2: executing \"\" at <.Foo>: can't evaluate field Foo in type *formatter.Thing",
        );
        check("table {{upper .Name}}", "NAME\nONE\nA-LONGER-NAME\n");
    }
}
