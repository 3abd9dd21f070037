from ._certificate import Certificate as Certificate, certify as certify
