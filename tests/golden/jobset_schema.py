"""Extract from JobSet's published schema what our manifests use of it: names, types, limits.

  python tests/golden/jobset_schema.py jobset.x-k8s.io_jobsets.yaml MANIFEST…

The file is in config/components/crd/bases of github.com/kubernetes-sigs/jobset (v1alpha2, commit
08dfbdfd of 2026-08-18). It has the schema of Kubernetes' Job in it. Of objects that the manifests
use every field's name is kept, so that a wrong one is found; the rest as far as it is used.
"""

import json
import pathlib
import sys

import yaml

RULES = ("type", "required", "enum", "minimum", "maximum", "format", "x-kubernetes-int-or-string")


def extract(schema: dict, values: list) -> dict:
    """Keep the part of a schema that the values use."""
    kept = {key: schema[key] for key in RULES if key in schema}
    if "properties" in schema:
        kept["properties"] = {
            name: extract(field, [v[name] for v in values if name in v])
            if any(name in v for v in values)
            else {}
            for name, field in schema["properties"].items()
        }
    if "additionalProperties" in schema:
        inner = [x for v in values for x in v.values()]
        kept["additionalProperties"] = extract(schema["additionalProperties"], inner)
    if "items" in schema:
        kept["items"] = extract(schema["items"], [x for v in values for x in v])
    return kept


if __name__ == "__main__":
    crd = yaml.safe_load(pathlib.Path(sys.argv[1]).read_text())
    (version,) = (v for v in crd["spec"]["versions"] if v["name"] == "v1alpha2")
    manifests = [yaml.safe_load(pathlib.Path(path).read_text()) for path in sys.argv[2:]]
    found = extract(version["schema"]["openAPIV3Schema"], manifests)
    path = pathlib.Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
